//! On which devices a filter looks at packets.

use super::Program;
use super::assembler::Assembler;
use super::program::op;

/// What comes before a filter: on loopback, where every packet passes twice, it rejects packets
/// on their way out; and everything on other devices than those with the given numbers (sorted).
pub(crate) fn prelude(devices: Option<&[u32]>) -> Program {
    let mut asm = Assembler::default();
    let (on_loopback, elsewhere, reject, accept) =
        (asm.label(), asm.label(), asm.label(), asm.label());
    asm.statement(op::LD_ABS, op::HARDWARE_TYPE);
    asm.test(
        op::JEQ,
        libc::ARPHRD_LOOPBACK.into(),
        on_loopback,
        elsewhere,
    );
    asm.bind(on_loopback);
    asm.statement(op::LD_ABS, op::PACKET_TYPE);
    asm.test(op::JEQ, libc::PACKET_OUTGOING.into(), reject, elsewhere);
    asm.bind(elsewhere);
    match devices {
        Some(numbers) => {
            asm.statement(op::LD_ABS, op::DEVICE_NUMBER);
            asm.search_any(numbers, accept, reject);
        }
        None => asm.goto(accept),
    }
    asm.bind(reject);
    asm.statement(op::RET, 0);
    asm.bind(accept);
    Program::new(asm.assemble())
}
