//! Sample files that both halves know: rows of `digital_object` in the database, bytes below `uploads` in the tree.

use crate::rng::Rng;
use sha2::{Digest, Sha256};

/// How many digital objects of the database have their files in the tree.
pub(crate) const SAMPLES: usize = 24;

/// One file of a digital object.
pub(crate) struct SampleFile {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) sha256: String,
}

/// Master, reference and thumbnail of a sample.
pub(crate) fn sample(seed: u64, number: usize) -> [SampleFile; 3] {
    let mut rng = Rng::new(seed, "sample", number as u64);
    let name = match number % 6 {
        0 => format!("Nagelaten brieven (vóór 19{number:02}).jpg"),
        1 => format!("фото_{number:03}.jpg"),
        2 => format!("檔案{number}.jpg"),
        _ => format!("IMG_{:04}.jpg", 1200 + number),
    };
    let stem = name.trim_end_matches(".jpg").to_owned();
    [(name, 40_000 + rng.below(80_000)), (format!("{stem}_141.jpg"), 9_000), (format!("{stem}_142.jpg"), 2_000)].map(|(name, len)| {
        let bytes = jpeg_like(&mut rng, len);
        let sha256 = hex::encode(Sha256::digest(&bytes));
        SampleFile { name, bytes, sha256 }
    })
}

/// Directory of a digital object, relative to the application's root with a leading slash, as `digital_object.path` has it.
pub(crate) fn directory(repository: &str, sha256: &str) -> String {
    format!("/uploads/r/{repository}/{}/{}/{}/{sha256}/", &sha256[..1], &sha256[1..2], &sha256[2..3])
}

/// Bytes that no compressor shrinks, between a JPEG's first and last markers.
pub(crate) fn jpeg_like(rng: &mut Rng, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, b'J', b'F', b'I', b'F', 0x00];
    bytes.extend_from_slice(&rng.bytes(len.saturating_sub(13)));
    bytes.extend_from_slice(&[0xff, 0xd9]);
    bytes
}
