//! Small text files in the data directory that are replaced as a whole: a title, lines, and a checksum as the last line.

use crate::Result;
use disk::{OpenMode, Vfs};
use std::path::Path;

/// Longer than any of them becomes.
const BYTES_MAX: u64 = 64 << 20;

/// What was found of a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// There is none.
    Missing,
    /// There is one, and it cannot be trusted.
    Damaged,
    /// The lines after the title.
    Body(String),
}

/// Title, lines and checksum.
fn render(title: &str, body: &str) -> String {
    let text = format!("{title}\n{body}");
    format!("{text}crc32 = {:08x}\n", crc32fast::hash(text.as_bytes()))
}

fn parse(title: &str, text: &str) -> Option<String> {
    let (before, sum) = text.split_at(text.rfind("crc32 = ")?);
    if sum != format!("crc32 = {:08x}\n", crc32fast::hash(before.as_bytes())) {
        return None;
    }
    Some(before.strip_prefix(title)?.strip_prefix('\n')?.to_owned())
}

/// Reads the note `name` in `dir`.
pub(crate) fn read(vfs: &dyn Vfs, dir: &Path, name: &str, title: &str) -> Result<Note> {
    let file = match vfs.open(&dir.join(name), OpenMode::Read) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Ok(Note::Missing),
        Err(e) => return Err(e.into()),
    };
    let mut bytes = vec![0; file.len()?.min(BYTES_MAX) as usize];
    file.read_exact_at(&mut bytes, 0)?;
    let body = std::str::from_utf8(&bytes).ok().and_then(|text| parse(title, text));
    Ok(body.map_or(Note::Damaged, Note::Body))
}

/// Replaces the note `name` in `dir`, durably: after a crash there is the old one or the new one.
pub(crate) fn write(vfs: &dyn Vfs, dir: &Path, name: &str, title: &str, body: &str) -> Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    match vfs.remove(&temporary) {
        Err(e) if !e.is_not_found() => return Err(e.into()),
        _ => {}
    }
    let file = vfs.open(&temporary, OpenMode::Create)?;
    file.write_all_at(render(title, body).as_bytes(), 0)?;
    // The content before the name.
    file.sync_data()?;
    vfs.rename(&temporary, &dir.join(name))?;
    vfs.sync_dir(dir)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_round_trips_and_every_damaged_byte_is_noticed() {
        let text = render("title", "a = 1\nb = crc32 = 2\n");
        assert_eq!(parse("title", &text).as_deref(), Some("a = 1\nb = crc32 = 2\n"));
        assert_eq!(parse("other", &text), None);
        for i in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[i] ^= 1;
            assert_eq!(parse("title", &String::from_utf8_lossy(&bytes)), None, "byte {i}");
            assert_eq!(parse("title", &text[..i]), None, "cut at {i}");
        }
    }
}
