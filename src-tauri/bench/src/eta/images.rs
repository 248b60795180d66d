//! The images that are pulled: few and many layers, tiny and big ones, such that only have to be carried and such that
//! are mostly work to unpack. Made from seeds, so that each build gives the same digests.

use anyhow::Result;
use cove_testbed::{Busybox, Image, ImageConfig, Layer, Random, Tree};

/// An image of the bench.
#[derive(Debug)]
pub(crate) struct BenchImage {
    /// Its repository in the registry.
    pub(crate) name: &'static str,
    layers: &'static [Content],
}

/// What a layer holds, beside the first, which is a shell.
#[derive(Debug, Clone, Copy)]
enum Content {
    /// Kilobytes that do not compress.
    Noise(usize),
    /// Kilobytes of lines like those of a log, in many files: about a fourteenth of it is carried.
    Text(usize),
    /// Kilobytes of which every second file compresses, as with programs and their data.
    Mixed(usize),
}

use Content::{Mixed, Noise, Text};

/// All images, by layers: 3, 4, 6, 8, 10 and 12.
pub(crate) const ALL: [BenchImage; 6] = [
    BenchImage {
        name: "lean",
        layers: &[Noise(14_000), Noise(2)],
    },
    BenchImage {
        name: "script",
        layers: &[Noise(16_000), Text(90_000), Mixed(8_000)],
    },
    BenchImage {
        name: "bulky",
        layers: &[
            Noise(1),
            Noise(46_000),
            Text(60_000),
            Noise(500),
            Noise(2_500),
        ],
    },
    BenchImage {
        name: "tools",
        layers: &[
            Noise(3_000),
            Text(120_000),
            Noise(5_000),
            Noise(1),
            Mixed(12_000),
            Noise(9_000),
            Noise(300),
        ],
    },
    BenchImage {
        name: "varied",
        layers: &[
            Noise(4),
            Noise(1_000),
            Mixed(20_000),
            Noise(12_000),
            Noise(300),
            Text(100_000),
            Noise(1),
            Noise(15_000),
            Noise(4_000),
        ],
    },
    BenchImage {
        name: "many",
        layers: &[
            Noise(8_000),
            Noise(6_000),
            Noise(10_000),
            Noise(2),
            Text(70_000),
            Noise(7_000),
            Noise(1),
            Noise(9_000),
            Noise(5_000),
            Mixed(16_000),
            Noise(10_000),
        ],
    },
];

/// The size of a file in a layer.
const FILE: usize = 48_000;
/// Lines to choose from, few enough that gzip finds each again within the 32 kB that it looks back.
const LINES: usize = 120;
/// What gzip does by default, and so do those who publish images.
const LEVEL: u32 = 6;

impl BenchImage {
    /// Builds the image.
    ///
    /// # Errors
    /// When this machine has no static busybox.
    pub(crate) fn build(&self) -> Result<Image> {
        let mut layers = vec![self.shell()?];
        for (index, content) in self.layers.iter().enumerate() {
            layers.push(self.layer(index, *content)?);
        }
        let config = ImageConfig {
            env: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
            cmd: ["sleep", "1000000"].map(str::to_owned).into(),
            history: format!("cove bench image {}", self.name),
            ..ImageConfig::default()
        };
        Image::new(&config, layers)
    }

    fn shell(&self) -> Result<Layer> {
        let mut tree = Tree::default();
        Busybox::installed()?.add_to(&mut tree);
        tree.folder("tmp", 0o1777, 0);
        // A layer that two images share would be there before the second is pulled.
        tree.file("etc/image", 0o644, 0, self.name.into());
        Ok(tree.into_layer()?.squeezed(LEVEL))
    }

    fn layer(&self, index: usize, content: Content) -> Result<Layer> {
        let mut random = Random::after(hash(&format!("{} {index}", self.name)) | 1);
        let lines: Vec<Vec<u8>> = (0..LINES).map(|_| line(&mut random)).collect();
        let (Noise(kilobytes) | Text(kilobytes) | Mixed(kilobytes)) = content;
        let mut tree = Tree::default();
        let mut left = kilobytes * 1_000;
        let mut file = 0;
        while left > 0 {
            let size = left.min(FILE);
            let is_text = match content {
                Noise(_) => false,
                Text(_) => true,
                Mixed(_) => file % 2 == 1,
            };
            let bytes = if is_text {
                text(&mut random, size, &lines)
            } else {
                random.bytes(size)
            };
            let path = format!("opt/{index}/{:03}/{file:05}", file / 100);
            tree.file(&path, 0o644, 0, bytes);
            left -= size;
            file += 1;
        }
        Ok(tree.into_layer()?.squeezed(LEVEL))
    }
}

/// Returns a number for a text by FNV-1a, so that texts that differ in a letter have nothing in common.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

fn line(random: &mut Random) -> Vec<u8> {
    // Nothing in common with the begin of another: gzip gives up after a number of candidates.
    let mut line = Vec::new();
    for _ in 0..8 {
        line.extend(format!("{:010x} ", random.number() >> 24).bytes());
    }
    line.push(b'\n');
    line
}

fn text(random: &mut Random, size: usize, lines: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 128);
    while bytes.len() < size {
        let count = lines.len().max(1) as u64;
        let chosen = usize::try_from(random.number() % count)
            .ok()
            .and_then(|index| lines.get(index));
        bytes.extend_from_slice(chosen.map_or(b"\n", Vec::as_slice));
    }
    bytes.truncate(size);
    bytes
}
