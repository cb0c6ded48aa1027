//! Classic BPF programs (`socket(7)`, SO_ATTACH_FILTER; McCanne and Jacobson, "The BSD Packet
//! Filter", 1993).

/// One instruction, `struct sock_filter` of `linux/filter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip when a test holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// A program that the kernel runs on each packet: it returns how many bytes of it to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
}

impl Program {
    /// The longest program that is made here: what the kernel takes (`BPF_MAXINSNS`, 4,096), less
    /// the room for a prelude of hundreds of devices.
    pub const MAX_INSTRUCTIONS: usize = 4096 - 384;

    pub(super) fn new(instructions: Vec<Instruction>) -> Self {
        Self { instructions }
    }

    /// A program that keeps nothing of any packet.
    pub(crate) fn reject_all() -> Self {
        Self::new(vec![Instruction {
            code: op::RET,
            jt: 0,
            jf: 0,
            k: 0,
        }])
    }

    /// This program, and the other one for packets that pass its end.
    pub(crate) fn followed_by(mut self, other: &Self) -> Self {
        self.instructions.extend_from_slice(&other.instructions);
        self
    }

    /// The instructions, in order.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// The program as the kernel takes it.
    pub(crate) fn to_kernel(&self) -> Vec<libc::sock_filter> {
        self.instructions
            .iter()
            .map(|i| libc::sock_filter {
                code: i.code,
                jt: i.jt,
                jf: i.jf,
                k: i.k,
            })
            .collect()
    }
}

/// The instruction codes that are used here, composed as `linux/bpf_common.h` does.
pub(super) mod op {
    /// A = k.
    pub(in crate::filter) const LD_IMM: u16 = 0x00;
    /// A = byte at X + k.
    pub(in crate::filter) const LDB_IND: u16 = 0x50;
    /// A = 16 bits at X + k, from network order.
    pub(in crate::filter) const LDH_IND: u16 = 0x48;
    /// A = 32 bits at X + k, from network order.
    pub(in crate::filter) const LD_IND: u16 = 0x40;
    /// A = 32 bits at k, from network order; or what the kernel knows of the packet, for a k of
    /// those below (`SKF_AD_OFF` of `linux/filter.h`).
    pub(in crate::filter) const LD_ABS: u16 = 0x20;
    /// Whether the packet comes or goes (`SKF_AD_PKTTYPE`).
    pub(in crate::filter) const PACKET_TYPE: u32 = ANCILLARY + 4;
    /// The number of its device (`SKF_AD_IFINDEX`).
    pub(in crate::filter) const DEVICE_NUMBER: u32 = ANCILLARY + 8;
    /// The type of its device, `ARPHRD_*` (`SKF_AD_HATYPE`).
    pub(in crate::filter) const HARDWARE_TYPE: u32 = ANCILLARY + 28;
    const ANCILLARY: u32 = u32::MAX - 0x1000 + 1;
    /// A = 16 bits at k, from network order.
    pub(in crate::filter) const LDH_ABS: u16 = 0x28;
    /// `A = M[k]`.
    pub(in crate::filter) const LD_MEM: u16 = 0x60;
    /// X = k.
    pub(in crate::filter) const LDX_IMM: u16 = 0x01;
    /// `X = M[k]`.
    pub(in crate::filter) const LDX_MEM: u16 = 0x61;
    /// `M[k] = A`.
    pub(in crate::filter) const ST: u16 = 0x02;
    /// `M[k] = X`.
    pub(in crate::filter) const STX: u16 = 0x03;
    /// A = A & k.
    pub(in crate::filter) const AND: u16 = 0x54;
    /// A = A << k.
    pub(in crate::filter) const LSH: u16 = 0x64;
    /// A = A >> k.
    pub(in crate::filter) const RSH: u16 = 0x74;
    /// A = A + X.
    pub(in crate::filter) const ADD_X: u16 = 0x0c;
    /// X = A.
    pub(in crate::filter) const TAX: u16 = 0x07;
    /// Skip k instructions.
    pub(in crate::filter) const JA: u16 = 0x05;
    /// Test A == k.
    pub(in crate::filter) const JEQ: u16 = 0x15;
    /// Test A >= k.
    pub(in crate::filter) const JGE: u16 = 0x35;
    /// Test A & k != 0.
    pub(in crate::filter) const JSET: u16 = 0x45;
    /// Keep k bytes.
    pub(in crate::filter) const RET: u16 = 0x06;
}
