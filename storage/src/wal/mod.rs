//! What the engine writes to its log.
//!
//! ```text
//! record   := 1 rows | 2 metadata | 3 checkpoint
//! rows     := 0x01 shard generation definitions floats others           all of one shard
//!   definitions := count [first count x (len labels)]                   numbers first, first+1, …
//!   floats      := count [base numbers timestamps values]
//!     base       := zigzag                                              numbers: zigzag differences, from 0
//!     numbers    := count x zigzag       timestamps := count x zigzag   differences, from base
//!     values     := count x u64 LE                                      raw bits
//!   others      := count x (flags number timestamp [start] value)
//!     flags      := u8, bit 0 histogram, bit 1 start timestamp          timestamps: zigzag, absolute
//! metadata := 0x02 count x (family type:u8 help unit)                   strings: len bytes
//! checkpoint := 0x03 generation
//! ```
//!
//! Integers are varints unless said otherwise. A series is defined once per *generation* and shard and referred to by its
//! number there; a later generation defines it again at its next sample, so that old segments can go without a separate
//! snapshot of the series. A checkpoint says that nothing of earlier generations is needed any more, in this segment
//! either.

mod record;

pub use record::{Other, Record, Rows, RowsWriter, encode_checkpoint, encode_metadata};
