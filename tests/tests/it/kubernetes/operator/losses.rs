//! What happens on a bad day.

use super::*;
