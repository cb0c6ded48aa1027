//! Runs classic BPF programs as the kernel does, for tests.

use super::Program;

/// What the program returns for a packet. Panics on what the kernel's checker would refuse.
pub(super) fn run(program: &Program, packet: &[u8]) -> u32 {
    let code = program.instructions();
    let (mut a, mut x, mut memory) = (0u32, 0u32, [0u32; 16]);
    let mut at = 0;
    loop {
        let i = code[at];
        at += 1;
        let load = |offset: u64, size: usize| -> Option<u32> {
            let offset = usize::try_from(offset).ok()?;
            let bytes = packet.get(offset..offset + size)?;
            Some(bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
        };
        let (absolute, indirect) = (u64::from(i.k), u64::from(i.k) + u64::from(x));
        let loaded = match i.code {
            0x20 => Some(load(absolute, 4)),
            0x28 => Some(load(absolute, 2)),
            0x30 => Some(load(absolute, 1)),
            0x40 => Some(load(indirect, 4)),
            0x48 => Some(load(indirect, 2)),
            0x50 => Some(load(indirect, 1)),
            _ => None,
        };
        match loaded {
            Some(Some(value)) => {
                a = value;
                continue;
            }
            // A load from beyond the packet ends the program.
            Some(None) => return 0,
            None => {}
        }
        let jump = |holds: bool| usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            0x00 => a = i.k,
            0x01 => x = i.k,
            0x60 => a = memory[i.k as usize],
            0x61 => x = memory[i.k as usize],
            0x02 => memory[i.k as usize] = a,
            0x03 => memory[i.k as usize] = x,
            0xb1 => match load(absolute, 1) {
                Some(byte) => x = 4 * (byte & 0xf),
                None => return 0,
            },
            0x04 => a = a.wrapping_add(i.k),
            0x0c => a = a.wrapping_add(x),
            0x14 => a = a.wrapping_sub(i.k),
            0x54 => a &= i.k,
            0x44 => a |= i.k,
            0x64 => a <<= i.k,
            0x74 => a >>= i.k,
            0x07 => x = a,
            0x87 => a = x,
            0x05 => at += i.k as usize,
            0x15 => at += jump(a == i.k),
            0x25 => at += jump(a > i.k),
            0x35 => at += jump(a >= i.k),
            0x45 => at += jump(a & i.k != 0),
            0x06 => return i.k,
            0x16 => return a,
            other => panic!("instruction {other:#x} is unknown"),
        }
    }
}
