//! From jumps to labels, of any distance, to instructions.
//!
//! A test in classic BPF skips at most 255 instructions; where a target is farther away, the test
//! is followed by an unconditional jump, which has 32 bits.

use super::program::{Instruction, op};

/// A place in the program that can be jumped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

#[derive(Clone, Copy)]
enum Item {
    Statement {
        code: u16,
        k: u32,
    },
    Test {
        code: u16,
        k: u32,
        yes: Arm,
        no: Arm,
    },
    Goto(Label),
    Bind(Label),
}

#[derive(Clone, Copy)]
struct Arm {
    target: Label,
    /// Whether an unconditional jump is needed to get there.
    far: bool,
}

impl Item {
    fn length(self) -> usize {
        match self {
            Self::Statement { .. } | Self::Goto(_) => 1,
            Self::Test { yes, no, .. } => 1 + usize::from(yes.far) + usize::from(no.far),
            Self::Bind(_) => 0,
        }
    }
}

/// A program under construction. Jumps go forward only, as the kernel demands.
#[derive(Default)]
pub(super) struct Assembler {
    items: Vec<Item>,
    labels: usize,
}

impl Assembler {
    /// A label that is yet to be bound.
    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// Puts a label here.
    pub(super) fn bind(&mut self, label: Label) {
        self.items.push(Item::Bind(label));
    }

    /// An instruction that does not jump.
    pub(super) fn statement(&mut self, code: u16, k: u32) {
        self.items.push(Item::Statement { code, k });
    }

    /// An unconditional jump.
    pub(super) fn goto(&mut self, target: Label) {
        self.items.push(Item::Goto(target));
    }

    /// A test that jumps either way.
    pub(super) fn test(&mut self, code: u16, k: u32, yes: Label, no: Label) {
        let arm = |target| Arm { target, far: false };
        self.items.push(Item::Test {
            code,
            k,
            yes: arm(yes),
            no: arm(no),
        });
    }

    /// A test that goes on with the next instruction when it does not hold.
    pub(super) fn test_or_next(&mut self, code: u16, k: u32, yes: Label) {
        let next = self.label();
        self.test(code, k, yes, next);
        self.bind(next);
    }

    /// Loads a number that is to be one of `values` (sorted), and goes to the label of the one it
    /// is, in a number of tests that grows with the logarithm of how many there are.
    pub(super) fn search(&mut self, values: &[(u32, Label)], none: Label) {
        const LINEAR: usize = 3;
        match values {
            [] => self.goto(none),
            [head @ .., last] if values.len() <= LINEAR => {
                for (value, label) in head {
                    self.test_or_next(op::JEQ, *value, *label);
                }
                self.test(op::JEQ, last.0, last.1, none);
            }
            _ => {
                let (low, high) = values.split_at(values.len() / 2);
                let (left, right) = (self.label(), self.label());
                let middle = high.first().map_or(0, |(value, _)| *value);
                self.test(op::JGE, middle, right, left);
                self.bind(left);
                self.search(low, none);
                self.bind(right);
                self.search(high, none);
            }
        }
    }

    /// As `search`, where all values (sorted) lead to the same label.
    pub(super) fn search_any(&mut self, values: &[u32], yes: Label, no: Label) {
        /// So many values take fewer than 255 instructions, so that their tests reach a jump that
        /// they share, instead of needing one each.
        const NEAR: usize = 128;
        if values.len() > NEAR {
            let (low, high) = values.split_at(values.len() / 2);
            let (left, right) = (self.label(), self.label());
            self.test(op::JGE, high.first().copied().unwrap_or(0), right, left);
            self.bind(left);
            self.search_any(low, yes, no);
            self.bind(right);
            self.search_any(high, yes, no);
            return;
        }
        let (hit, miss) = (self.label(), self.label());
        let arms: Vec<_> = values.iter().map(|value| (*value, hit)).collect();
        self.search(&arms, miss);
        self.bind(hit);
        self.goto(yes);
        self.bind(miss);
        self.goto(no);
    }

    /// The instructions. Labels that are not bound count as the end of the program.
    pub(super) fn assemble(mut self) -> Vec<Instruction> {
        // Making one arm longer can push the target of another out of reach: repeat until none
        // changes. Arms only ever become far, so this ends.
        loop {
            let positions = self.positions();
            let mut changed = false;
            let mut here = 0;
            for item in &mut self.items {
                let length = item.length();
                if let Item::Test { yes, no, .. } = item {
                    for arm in [yes, no] {
                        let distance = distance(&positions, arm.target, here + 1);
                        if !arm.far && distance > usize::from(u8::MAX) {
                            arm.far = true;
                            changed = true;
                        }
                    }
                }
                here += length;
            }
            if !changed {
                return self.emit(&positions);
            }
        }
    }

    fn positions(&self) -> Vec<usize> {
        let total = self.items.iter().map(|item| item.length()).sum();
        let mut positions = vec![total; self.labels];
        let mut here = 0;
        for item in &self.items {
            if let Item::Bind(label) = item
                && let Some(position) = positions.get_mut(label.0)
            {
                *position = here;
            }
            here += item.length();
        }
        positions
    }

    fn emit(&self, positions: &[usize]) -> Vec<Instruction> {
        let mut out: Vec<Instruction> = Vec::new();
        let jump = |out: &mut Vec<Instruction>, target| {
            let distance = distance(positions, target, out.len() + 1);
            out.push(Instruction {
                code: op::JA,
                jt: 0,
                jf: 0,
                k: u32::try_from(distance).unwrap_or(u32::MAX),
            });
        };
        for item in &self.items {
            match *item {
                Item::Bind(_) => {}
                Item::Statement { code, k } => out.push(Instruction {
                    code,
                    jt: 0,
                    jf: 0,
                    k,
                }),
                Item::Goto(target) => jump(&mut out, target),
                Item::Test { code, k, yes, no } => {
                    let near = |arm: Arm| {
                        u8::try_from(distance(positions, arm.target, out.len() + 1))
                            .unwrap_or(u8::MAX)
                    };
                    let jt = if yes.far { 0 } else { near(yes) };
                    let jf = if no.far { u8::from(yes.far) } else { near(no) };
                    out.push(Instruction { code, jt, jf, k });
                    for arm in [yes, no] {
                        if arm.far {
                            jump(&mut out, arm.target);
                        }
                    }
                }
            }
        }
        out
    }
}

/// How many instructions to skip from `next` (the one after the jump) to a label.
fn distance(positions: &[usize], target: Label, next: usize) -> usize {
    positions
        .get(target.0)
        .map_or(0, |position| position.saturating_sub(next))
}

#[cfg(test)]
mod tests {
    use super::super::interpreter::run;
    use super::super::program::Program;
    use super::*;

    /// A program that returns, for a value loaded from a packet, its position among `values`.
    fn lookup(values: &[u32]) -> Program {
        let mut asm = Assembler::default();
        asm.statement(op::LDX_IMM, 0);
        asm.statement(op::LD_IND, 0);
        let arms: Vec<_> = values.iter().map(|v| (*v, asm.label())).collect();
        let none = asm.label();
        asm.search(&arms, none);
        for (position, (_, label)) in arms.iter().enumerate() {
            asm.bind(*label);
            asm.statement(op::RET, position as u32 + 1);
        }
        asm.bind(none);
        asm.statement(op::RET, 0);
        Program::new(asm.assemble())
    }

    #[test]
    fn targets_at_any_distance_are_reached() {
        for count in [0, 1, 3, 4, 5, 120, 128, 250, 256, 300, 1000] {
            let values: Vec<u32> = (0..count).map(|i| i * 3 + 5).collect();
            let program = lookup(&values);
            for (position, value) in values.iter().enumerate() {
                let got = run(&program, &value.to_be_bytes());
                assert_eq!(got, position as u32 + 1, "{value} of {count}");
                assert_eq!(run(&program, &(value + 1).to_be_bytes()), 0);
            }
            assert_eq!(run(&program, &[0; 4]), 0);
            assert_eq!(run(&program, &[255; 4]), 0);
        }
    }
}
