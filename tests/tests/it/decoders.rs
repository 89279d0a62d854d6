//! Everything that decodes bytes of other nodes or of a disk, against real encodings and what becomes of them by small changes: a
//! short form of what the fuzz targets do with coverage and time.

#[path = "../../../fuzz/src/decoders/mod.rs"]
mod laws;

use tests::random::Random;

/// Changed inputs of each decoder.
const CHANGES: u64 = 600;

/// One of the inputs, changed a little: bytes flipped, put in, taken out, repeated, or joined from two.
fn changed(seeds: &[Vec<u8>], lots: &mut Random) -> Vec<u8> {
    let mut bytes = lots.pick(seeds).clone();
    for _ in 0..lots.between(1, 4) {
        let at = lots.below(bytes.len() as u64 + 1) as usize;
        match lots.below(6) {
            0 => bytes.insert(at, lots.number() as u8),
            1 => bytes.truncate(at),
            2 => {
                let other = lots.pick(seeds);
                let from = lots.below(other.len() as u64 + 1) as usize;
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            3 if at < bytes.len() => drop(bytes.remove(at)),
            // The longest numbers, and lengths of more than there is.
            4 if at < bytes.len() => bytes[at] = *lots.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            _ if at < bytes.len() => bytes[at] ^= 1 << lots.below(8),
            _ => {}
        }
    }
    bytes
}

#[test]
fn real_encodings_are_taken_and_whatever_becomes_of_them_is_taken_or_refused() {
    for decoder in laws::ALL {
        let seeds = (decoder.seeds)();
        assert!(!seeds.is_empty(), "{} has no seeds", decoder.name);
        for (number, seed) in seeds.iter().enumerate() {
            assert!((decoder.check)(seed), "seed {number} of {} is refused", decoder.name);
        }
        let mut refused = 0;
        for number in 0..CHANGES {
            let bytes = changed(&seeds, &mut Random::new(number));
            let tried = std::panic::catch_unwind(|| (decoder.check)(&bytes));
            match tried {
                Ok(taken) => refused += u64::from(!taken),
                Err(_) => panic!("{} fails with change {number}: {bytes:02x?}", decoder.name),
            }
        }
        // Changes that nobody notices would prove nothing.
        assert!(refused > 0, "{} takes everything", decoder.name);
    }
}

#[test]
fn every_decoder_has_its_fuzz_target() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    for decoder in laws::ALL {
        let file = folder.join(format!("{}.rs", decoder.name));
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            text.contains(&format!("decoders::{}::", decoder.name)),
            "{} does not run it",
            file.display()
        );
    }
}
