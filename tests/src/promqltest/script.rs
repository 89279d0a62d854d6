//! Scripts as commands.
//!
//! ```text
//! clear
//! load <step>                                          also load_with_nhcb
//!   <series>                                           up to an empty line or a comment
//! eval instant at <time> <expression>
//! eval range from <time> to <time> step <duration> <expression>
//!   expect <what>                                      see expectation
//!   <series> | <number>
//! ```

use super::expectation::Expectation;
use anyhow::{Context, Result, bail};
use query::parser::literal;
use query::parser::series::{self, Series};

/// One command of a script.
#[derive(Debug)]
pub enum Command {
    /// Forget everything that was loaded.
    Clear,
    /// Add series.
    Load(Load),
    /// Evaluate and compare.
    Eval(Box<Case>),
}

/// Series to add.
#[derive(Debug)]
pub struct Load {
    /// Line in the script, from 1.
    pub line: usize,
    /// Milliseconds between values; the first is at 0.
    pub step_ms: i64,
    /// Whether to add custom-bucket histograms made from classic ones.
    pub with_custom_buckets: bool,
    /// The series.
    pub series: Vec<Series>,
}

/// When to evaluate, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Once.
    At(i64),
    /// At all steps, both ends included.
    Range {
        /// First step.
        start: i64,
        /// End.
        end: i64,
        /// Distance.
        step: i64,
    },
}

/// An expression and what it should evaluate to.
#[derive(Debug)]
pub struct Case {
    /// Line in the script, from 1.
    pub line: usize,
    /// The whole first line.
    pub text: String,
    /// The expression.
    pub expr: String,
    /// When.
    pub when: When,
    /// What comes out.
    pub expected: Expectation,
}

/// Parses a script.
pub fn parse(text: &str) -> Result<Vec<Command>> {
    // A comment ends a block, as an empty line does.
    let lines: Vec<&str> =
        text.lines().map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut commands = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let number = at + 1;
        let first = lines[at];
        at += 1;
        if first.is_empty() {
            continue;
        }
        let block = match first {
            "clear" => &[],
            _ => {
                let length = lines[at..].iter().take_while(|line| !line.is_empty()).count();
                &lines[at..at + length]
            }
        };
        at += block.len();
        let command = command(number, first, block).with_context(|| format!("line {number}: {first}"))?;
        commands.push(command);
    }
    Ok(commands)
}

fn command(line: usize, first: &str, block: &[&str]) -> Result<Command> {
    let (word, rest) = split(first);
    match word {
        "clear" => Ok(Command::Clear),
        "load" | "load_with_nhcb" => {
            let series = block.iter().map(|line| series(line)).collect::<Result<_>>()?;
            let with_custom_buckets = word == "load_with_nhcb";
            Ok(Command::Load(Load { line, step_ms: time(rest)?, with_custom_buckets, series }))
        }
        _ if word.starts_with("eval") => {
            let (when, expr) = when(rest)?;
            let mut expected = Expectation::of_command(word)?;
            for line in block {
                expected.add(line, when)?;
            }
            Ok(Command::Eval(Box::new(Case { line, text: first.into(), expr: expr.into(), when, expected })))
        }
        _ => bail!("not a command"),
    }
}

/// One series with its values.
pub fn series(line: &str) -> Result<Series> {
    series::parse(line).with_context(|| line.to_string())
}

/// The first word and the rest.
pub fn split(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn keyword<'a>(text: &'a str, word: &str) -> Result<&'a str> {
    match split(text) {
        (first, rest) if first == word => Ok(rest),
        _ => bail!("expected `{word}` before: {text}"),
    }
}

fn when(text: &str) -> Result<(When, &str)> {
    let (kind, rest) = split(text);
    match kind {
        "instant" => {
            let (at, expr) = split(keyword(rest, "at")?);
            Ok((When::At(time(at)?), expr))
        }
        "range" => {
            let (range, expr) = range(rest)?;
            Ok((range, expr))
        }
        _ => bail!("expected `instant` or `range`"),
    }
}

/// `from <time> to <time> step <duration>`, and the rest.
pub fn range(text: &str) -> Result<(When, &str)> {
    let (start, rest) = split(keyword(text, "from")?);
    let (end, rest) = split(keyword(rest, "to")?);
    let (step, rest) = split(keyword(rest, "step")?);
    Ok((When::Range { start: time(start)?, end: time(end)?, step: time(step)? }, rest))
}

/// A time or a duration in milliseconds: `5m`, `-1h30s`, or bare seconds.
fn time(text: &str) -> Result<i64> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    if let Ok(seconds) = digits.parse::<f64>() {
        return Ok(sign * (seconds * 1000.0).round() as i64);
    }
    literal::duration(digits).map(|millis| sign * millis).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_at_empty_lines_and_comments() {
        let script = "load 5m\n  a 1 2\n  b 3\n# note\nclear\neval instant at 1m a\n  a 1\n";
        let commands = parse(script).unwrap();
        let [Command::Load(load), Command::Clear, Command::Eval(case)] = commands.as_slice() else {
            panic!("{commands:?}")
        };
        assert_eq!((load.series.len(), load.step_ms), (2, 300_000));
        assert_eq!((case.line, case.expr.as_str(), case.when), (6, "a", When::At(60_000)));
    }

    #[test]
    fn ranges_and_signs_are_read() {
        let (when, rest) = range("from -1m to 90 step 30s a + b").unwrap();
        assert_eq!(when, When::Range { start: -60_000, end: 90_000, step: 30_000 });
        assert_eq!(rest, "a + b");
    }

    #[test]
    fn what_is_no_command_is_refused_with_its_line() {
        let error = parse("clear\n\nlode 5m").unwrap_err();
        assert_eq!(format!("{error:#}"), "line 3: lode 5m: not a command");
        assert!(parse("eval instant a").is_err());
        assert!(parse("load 5m\n  a{ 1").is_err());
    }
}
