//! Packet files in every dialect, whole and damaged.

/// Two packets of a frame that is not quite TCP.
const FRAMES: [&[u8]; 2] = [&[0x45; 40], &[0x60; 33]];

/// All of them; the byte in front says that there is one file.
pub(crate) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for big in [false, true] {
        let end = if big { "big" } else { "little" };
        for (name, magic, extra) in [
            ("micro", 0xa1b2_c3d4, 0),
            ("nano", 0xa1b2_3c4d, 0),
            ("modified", 0xa1b2_cd34, 8),
        ] {
            all.push((format!("pcap-{name}-{end}"), pcap(big, magic, extra)));
        }
        let writer = Writer { big };
        all.push((format!("pcapng-{end}"), writer.whole()));
        all.push((format!("pcapng-clock-{end}"), writer.clock()));
        all.push((format!("pcapng-rare-{end}"), writer.rare()));
        all.push((
            format!("pcapng-sections-{end}"),
            [writer.whole(), writer.rare()].concat(),
        ));
        let mut cut = writer.whole();
        cut.truncate(cut.len() - 7);
        all.push((format!("pcapng-cut-{end}"), cut));
        let mut differing = writer.whole();
        let last = differing.len() - 1;
        differing[last] ^= 1;
        all.push((format!("pcapng-lengths-{end}"), differing));
    }
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(name, file)| (name, [&[0][..], &file].concat()))
        .collect();
    let (one, two) = (pcap(false, 0xa1b2_c3d4, 0), Writer { big: true }.whole());
    let split = (one.len() * 256).div_ceil(one.len() + two.len()) as u8;
    all.push(("two".to_owned(), [&[split][..], &one, &two].concat()));
    all.push(("nothing".to_owned(), vec![0]));
    all
}

fn put(file: &mut Vec<u8>, big: bool, number: u32) {
    file.extend(if big {
        number.to_be_bytes()
    } else {
        number.to_le_bytes()
    });
}

fn pcap(big: bool, magic: u32, extra: usize) -> Vec<u8> {
    let mut file = Vec::new();
    for number in [magic, 0x0004_0002, 0, 0, 65_535, 101] {
        put(&mut file, big, number);
    }
    for (second, frame) in (1u32..).zip(FRAMES) {
        let length = frame.len() as u32;
        for number in [second, 7, length, length + 1] {
            put(&mut file, big, number);
        }
        file.resize(file.len() + extra, 0);
        file.extend(frame);
    }
    file
}

struct Writer {
    big: bool,
}

impl Writer {
    fn block(&self, kind: u32, numbers: &[u32], rest: &[u8]) -> Vec<u8> {
        let length = (12 + 4 * numbers.len() + rest.len().next_multiple_of(4)) as u32;
        let mut block = Vec::new();
        put(&mut block, self.big, kind);
        put(&mut block, self.big, length);
        for number in numbers {
            put(&mut block, self.big, *number);
        }
        block.extend(rest);
        block.resize(length as usize - 4, 0);
        put(&mut block, self.big, length);
        block
    }

    /// Two halves of 16 bits, as one number in this byte order.
    fn halves(&self, first: u16, second: u16) -> u32 {
        let (first, second) = (u32::from(first), u32::from(second));
        if self.big {
            first << 16 | second
        } else {
            second << 16 | first
        }
    }

    fn begin(&self, options: &[u8]) -> Vec<u8> {
        let version = self.halves(1, 0);
        let section = [0x1a2b_3c4d, version, u32::MAX, u32::MAX];
        let link = self.halves(101, 0);
        [
            self.block(0x0a0d_0d0a, &section, &[]),
            self.block(1, &[link, 65_535], options),
        ]
        .concat()
    }

    fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = Vec::new();
        put(&mut option, self.big, self.halves(code, value.len() as u16));
        option.extend(value);
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn packet(&self, frame: &[u8]) -> Vec<u8> {
        let length = frame.len() as u32;
        self.block(6, &[0, 1, 2, length, length], frame)
    }

    fn whole(&self) -> Vec<u8> {
        let statistics = self.block(5, &[0, 1, 2], &self.option(5, &[0; 8]));
        let mut file = self.begin(&self.option(2, b"eth0"));
        for frame in FRAMES {
            file.extend(self.packet(frame));
        }
        file.extend(statistics);
        file
    }

    fn clock(&self) -> Vec<u8> {
        let options = [
            self.option(9, &[0x8a]),
            self.option(14, &[0, 0, 0, 0, 0, 0, 0, 9]),
        ]
        .concat();
        let mut file = self.begin(&options);
        file.extend(self.packet(FRAMES[0]));
        file
    }

    fn rare(&self) -> Vec<u8> {
        let mut file = self.begin(&[]);
        file.extend(self.block(0x0bad, &[1, 2, 3], b"abc"));
        file.extend(self.block(3, &[FRAMES[0].len() as u32], FRAMES[0]));
        let length = FRAMES[1].len() as u32;
        let ends = self.halves(0, 3);
        file.extend(self.block(2, &[ends, 1, 2, length, length], FRAMES[1]));
        file
    }
}
