//! Values of literals: numbers, durations, strings.

/// Milliseconds in each unit of a duration, in the order in which they must be written.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Prometheus keeps durations as nanoseconds in 64 bits.
const MILLIS_MAX: i64 = i64::MAX / 1_000_000;

/// Milliseconds of a duration such as `1h30m`, or why it is none. A bare `0` needs no unit.
pub fn duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("not a valid duration string: {}", model::labels::Quoted(text));
    match text {
        "" => return Err("empty duration string".into()),
        "0" => return Ok(0),
        _ => {}
    }
    let mut total = 0i64;
    let mut units = UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        // Each unit once, longest first: the search goes on where it stopped.
        let (_, millis) = units.find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        if digits == 0 {
            return Err(invalid());
        }
        total = number
            .parse::<i64>()
            .ok()
            .and_then(|n| n.checked_mul(*millis))
            .and_then(|n| n.checked_add(total))
            .filter(|n| *n <= MILLIS_MAX)
            .ok_or("duration out of range")?;
        rest = tail;
    }
    Ok(total)
}

/// The value of a number as Go reads it: first as an integer, where a leading zero means octal, then as a float.
pub fn number(text: &str) -> Result<f64, String> {
    let fail = |why| {
        format!("error parsing number: strconv.ParseFloat: parsing {}: {why}", model::labels::Quoted(text))
    };
    let plain = text.replace('_', "");
    let (digits, radix) = match plain.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&plain[2..], 16),
        [b'0', _, ..] => (&plain[1..], 8),
        _ => (plain.as_str(), 10),
    };
    if let Ok(integer) = i64::from_str_radix(digits, radix) {
        return Ok(integer as f64);
    }
    if radix == 16 {
        return Err(fail("invalid syntax"));
    }
    let value: f64 = plain.parse().map_err(|_| fail("invalid syntax"))?;
    if value.is_infinite() && plain.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(fail("value out of range"));
    }
    Ok(value)
}

/// The content of a string literal with its quotes, which names or is compared with something and so has to be UTF-8.
pub fn string(literal: &str) -> Result<String, String> {
    String::from_utf8(bytes(literal)).map_err(|_| format!("string literal is not valid UTF-8: {literal}"))
}

/// The content of a string literal with its quotes, as far as it is UTF-8; U+FFFD stands for what is not.
pub fn text(literal: &str) -> String {
    String::from_utf8_lossy(&bytes(literal)).into_owned()
}

/// The content of a string literal with its quotes. The lexer has checked the escapes.
fn bytes(literal: &str) -> Vec<u8> {
    let quote = literal.as_bytes()[0];
    let inner = &literal[1..literal.len() - 1];
    if quote == b'`' || !inner.contains('\\') {
        return inner.as_bytes().to_vec();
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes()[at + 1];
        rest = &rest[at + 2..];
        let digits = match escape {
            b'a' => 7.into(),
            b'b' => 8.into(),
            b'f' => 12.into(),
            b'n' => b'\n'.into(),
            b'r' => b'\r'.into(),
            b't' => b'\t'.into(),
            b'v' => 11.into(),
            b'x' => Escape::Digits(2),
            b'u' => Escape::Digits(4),
            b'U' => Escape::Digits(8),
            b'0'..=b'7' => Escape::Octal(escape - b'0'),
            other => other.into(),
        };
        match digits {
            Escape::Byte(byte) => out.push(byte),
            Escape::Octal(first) => {
                let low = u8::from_str_radix(&rest[..2], 8).expect("BUG: the lexer checks escapes");
                out.push((first << 6) | low);
                rest = &rest[2..];
            }
            Escape::Digits(n) => {
                let value = u32::from_str_radix(&rest[..n], 16).expect("BUG: the lexer checks escapes");
                rest = &rest[n..];
                if n == 2 {
                    out.push(value as u8);
                } else {
                    let c = char::from_u32(value).expect("BUG: the lexer checks escapes");
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

enum Escape {
    Byte(u8),
    /// The first of three digits.
    Octal(u8),
    /// That many hexadecimal digits follow.
    Digits(usize),
}

impl From<u8> for Escape {
    fn from(byte: u8) -> Escape {
        Escape::Byte(byte)
    }
}
