//! Follows the context through the instructions of a program, into the functions it calls.
//!
//! Where ways meet, only what holds the context on all of them still does. The compiler has the context from the start and keeps it in
//! one place as long as it is wanted; what holds it on some ways only has it left over there, and stands for something else.
//! What can no longer be followed (arithmetic on the context, storing it elsewhere than in the own stack frame, an unknown instruction)
//! is an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use object::read::elf::ElfFile64;
use object::{
    LittleEndian, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionKind,
    SymbolKind,
};

/// Bytes of an instruction.
const WORD: u64 = 8;
/// The register with the address of the stack frame's end.
const FRAME: u8 = 10;
/// Of the arguments, which a call overwrites, and the result: r0 to r5.
const CLOBBERED: u16 = 0b11_1111;
/// Calls within calls; the kernel allows eight frames.
const DEEPEST: u32 = 8;

/// Section, name, and the context's offsets that are read, of each program: each global function in a section of programs.
pub(super) fn context_reads(object: &[u8]) -> Result<Vec<(String, String, BTreeSet<u16>)>> {
    let file = ElfFile64::<LittleEndian>::parse(object)?;
    let code = Code::of(&file)?;
    let mut programs = Vec::new();
    for symbol in file.symbols() {
        let (true, SymbolKind::Text, Some(index)) =
            (symbol.is_global(), symbol.kind(), symbol.section_index())
        else {
            continue;
        };
        let section = file.section_by_index(index)?.name()?.to_owned();
        if section == ".text" {
            continue;
        }
        let name = symbol.name()?.to_owned();
        let mut reads = BTreeSet::new();
        let entry = Place {
            section: index.0,
            instruction: symbol.address() / WORD,
        };
        // r1 is the context.
        code.follow(entry, 0b10, DEEPEST, &mut reads)
            .with_context(|| name.clone())?;
        programs.push((section, name, reads));
    }
    Ok(programs)
}

/// An instruction: its number in its section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    section: usize,
    instruction: u64,
}

/// What holds the context: registers by bit, and places in the stack frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holders {
    registers: u16,
    frame: BTreeSet<i16>,
}

impl Holders {
    const fn has(&self, register: u8) -> bool {
        self.registers >> register & 1 != 0
    }

    const fn set(&mut self, register: u8, holds: bool) {
        self.registers &= !(1 << register);
        self.registers |= (holds as u16) << register;
    }

    /// Forgets what does not hold it on another way; whether anything was forgotten.
    fn meet(&mut self, other: &Self) -> bool {
        let before = (self.registers, self.frame.len());
        self.registers &= other.registers;
        self.frame.retain(|place| other.frame.contains(place));
        before != (self.registers, self.frame.len())
    }
}

/// `struct bpf_insn`
#[derive(Clone, Copy, Debug)]
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn parse(bytes: &[u8]) -> Result<Self> {
        let &[opcode, registers, low, high, a, b, c, d] = bytes else {
            bail!("{} bytes are no instruction", bytes.len());
        };
        Ok(Self {
            opcode,
            destination: registers & 15,
            source: registers >> 4,
            offset: i16::from_le_bytes([low, high]),
            immediate: i32::from_le_bytes([a, b, c, d]),
        })
    }

    const fn is_of_eight_bytes(self) -> bool {
        self.opcode & 0x18 == 0x18
    }

    /// Where control goes, and what holds the context then.
    fn step(self, holders: &mut Holders) -> Next {
        let Self {
            opcode,
            destination,
            source,
            offset,
            immediate,
        } = self;
        match (opcode & 7, opcode) {
            // lddw: two words
            (0, _) => {
                holders.set(destination, false);
                return Next::On(2);
            }
            // Loads.
            (1, _) => {
                let restored = source == FRAME && self.is_of_eight_bytes() && holders.frame.contains(&offset);
                holders.set(destination, restored);
            }
            // Stores: of an immediate value, of a register.
            (2 | 3, _) if destination == FRAME => {
                if opcode & 7 == 3 && self.is_of_eight_bytes() && holders.has(source) {
                    holders.frame.insert(offset);
                } else {
                    holders.frame.remove(&offset);
                }
            }
            // mov of 64 bits, and everything else that computes
            (4 | 7, _) => holders.set(destination, opcode == 0xbf && holders.has(source)),
            (5, 0x95) => return Next::Exit,
            (5, 0x05) => return Next::On(1 + i64::from(offset)),
            (6, 0x06) => return Next::On(1 + i64::from(immediate)),
            (5, 0x85 | 0x8d) => holders.registers &= !CLOBBERED,
            (5 | 6, _) => return Next::Either(1 + i64::from(offset)),
            _ => {}
        }
        Next::On(1)
    }
}

/// Where control goes after an instruction, relative to it.
enum Next {
    On(i64),
    Either(i64),
    Exit,
}

struct Code<'a> {
    /// The instructions of each section that has any.
    sections: BTreeMap<usize, &'a [u8]>,
    /// Where the relocation of a call leads, before the call's own immediate is added.
    calls: BTreeMap<Place, Place>,
}

impl<'a> Code<'a> {
    fn of(file: &ElfFile64<'a, LittleEndian>) -> Result<Self> {
        let (mut sections, mut calls) = (BTreeMap::new(), BTreeMap::new());
        for section in file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
        {
            let from = section.index().0;
            sections.insert(from, section.data()?);
            for (address, relocation) in section.relocations() {
                let RelocationTarget::Symbol(index) = relocation.target() else {
                    continue;
                };
                let symbol = file.symbol_by_index(index)?;
                let place = |section, address| Place {
                    section,
                    instruction: address / WORD,
                };
                if let Some(to) = symbol.section_index() {
                    calls.insert(place(from, address), place(to.0, symbol.address()));
                }
            }
        }
        Ok(Self { sections, calls })
    }

    fn instruction(&self, place: Place) -> Result<Instruction> {
        let code = self
            .sections
            .get(&place.section)
            .context("a section without code")?;
        let start = usize::try_from(place.instruction * WORD)?;
        let bytes = code.get(start..start + 8).context("control leaves the section")?;
        Instruction::parse(bytes)
    }

    /// Adds the offsets at which the function at `entry` reads its context, which is in `registers`.
    fn follow(&self, entry: Place, registers: u16, depth: u32, reads: &mut BTreeSet<u16>) -> Result<()> {
        ensure!(depth > 0, "more calls within calls than the kernel allows");
        for (place, holders) in self.holders(entry, registers)? {
            let instruction = self.instruction(place)?;
            self.look(place, instruction, &holders, depth, reads)
                .with_context(|| format!("instruction {}: {instruction:x?}", place.instruction))?;
        }
        Ok(())
    }

    /// What holds the context before each instruction of the function.
    fn holders(&self, entry: Place, registers: u16) -> Result<BTreeMap<Place, Holders>> {
        let start = Holders {
            registers,
            ..Holders::default()
        };
        let mut known = BTreeMap::from([(entry, start)]);
        let mut work = vec![entry];
        while let Some(place) = work.pop() {
            let mut holders = known[&place].clone();
            let ways = match self.instruction(place)?.step(&mut holders) {
                Next::Exit => vec![],
                Next::On(distance) => vec![distance],
                Next::Either(distance) => vec![1, distance],
            };
            for distance in ways {
                let after = Place {
                    instruction: place
                        .instruction
                        .checked_add_signed(distance)
                        .context("a jump out of the section")?,
                    ..place
                };
                let news = match known.get_mut(&after) {
                    Some(before) => before.meet(&holders),
                    None => known.insert(after, holders.clone()).is_none(),
                };
                if news {
                    work.push(after);
                }
            }
        }
        Ok(known)
    }

    /// Notes what an instruction reads of the context; an error if it does with it what is not followed.
    fn look(
        &self,
        place: Place,
        instruction: Instruction,
        holders: &Holders,
        depth: u32,
        reads: &mut BTreeSet<u16>,
    ) -> Result<()> {
        let Instruction {
            opcode,
            destination,
            source,
            offset,
            immediate,
        } = instruction;
        match (opcode & 7, opcode) {
            (1, _) if holders.has(source) => {
                reads.insert(u16::try_from(offset)?);
            }
            (2 | 3, _) => {
                ensure!(!holders.has(destination), "writes to its context");
                let saved = opcode & 7 == 3 && holders.has(source);
                ensure!(
                    !saved || (destination == FRAME && instruction.is_of_eight_bytes()),
                    "stores its context where it is not followed"
                );
            }
            (4 | 7, 0xb4 | 0xb7 | 0xbf) => {}
            (4 | 7, 0xbc) => ensure!(!holders.has(source), "takes half of its context"),
            (4 | 7, _) => {
                let from_register = opcode & 8 != 0 && opcode & 0xf0 != 0xd0;
                ensure!(
                    !(holders.has(destination) || from_register && holders.has(source)),
                    "computes with its context"
                );
            }
            (5, 0x85) if source == 1 => {
                let callee = self.callee(place, immediate)?;
                self.follow(callee, holders.registers & CLOBBERED, depth - 1, reads)?;
            }
            (5, 0x8d) => bail!("calls a function by pointer"),
            (0, 0x18) | (1 | 5 | 6, _) => {}
            _ => bail!("unknown instruction"),
        }
        Ok(())
    }

    /// The function that a call leads to. The immediate counts from the relocation's symbol, or from the next instruction.
    fn callee(&self, place: Place, immediate: i32) -> Result<Place> {
        let base = self.calls.get(&place).copied().unwrap_or(place);
        let instruction = base
            .instruction
            .checked_add_signed(i64::from(immediate) + 1)
            .context("a call out of the section")?;
        Ok(Place { instruction, ..base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: u64 = 0x95;

    /// What a program of these instructions reads of its context.
    fn reads(program: &[u64]) -> Result<Vec<u16>> {
        let bytes: Vec<u8> = program.iter().flat_map(|word| word.to_le_bytes()).collect();
        let code = Code {
            sections: [(0, bytes.as_slice())].into(),
            calls: BTreeMap::new(),
        };
        let entry = Place {
            section: 0,
            instruction: 0,
        };
        let mut reads = BTreeSet::new();
        code.follow(entry, 0b10, DEEPEST, &mut reads)?;
        Ok(reads.into_iter().collect())
    }

    #[test]
    fn the_context_is_followed_through_moves_the_stack_and_calls() {
        // r6 = r1; r2 = *(u64 *)(r6 + 112)
        assert_eq!(reads(&[0x16bf, 0x0070_6279, EXIT]).unwrap(), [112]);
        // *(u64 *)(r10 - 8) = r1; r1 = *(u64 *)(r10 - 8); r2 = *(u64 *)(r1 + 48)
        let spilled = [0xfff8_1a7b, 0xfff8_a179, 0x0030_1279, EXIT];
        assert_eq!(reads(&spilled).unwrap(), [48]);
        // call +1; exit; r2 = *(u64 *)(r1 + 8); exit
        assert_eq!(reads(&[0x1_0000_1085, EXIT, 0x0008_1279, EXIT]).unwrap(), [8]);
    }

    #[test]
    fn both_ways_of_a_jump_are_followed_and_what_is_overwritten_on_one_is_not() {
        // if r0 == 0 goto +2; r2 = *(u64 *)(r1 + 8); exit; r2 = *(u64 *)(r1 + 16); exit
        assert_eq!(
            reads(&[0x0002_0015, 0x0008_1279, EXIT, 0x0010_1279, EXIT]).unwrap(),
            [8, 16]
        );
        // r6 = r1; if r0 == 0 goto +1; r6 = 0; r2 = *(u64 *)(r6 + 8); r2 = *(u64 *)(r1 + 16)
        assert_eq!(
            reads(&[0x16bf, 0x0001_0015, 0x06b7, 0x0008_6279, 0x0010_1279, EXIT]).unwrap(),
            [16]
        );
        // r1 = 0 (lddw); r2 = *(u64 *)(r1 + 8)
        assert_eq!(reads(&[0x0118, 0, 0x0008_1279, EXIT]).unwrap(), [0; 0]);
    }

    #[test]
    fn a_context_that_is_lost_from_sight_is_an_error() {
        // r1 += 8; *(u64 *)(r0 + 0) = r1; *(u64 *)(r1 + 0) = r0; no exit
        for program in [
            [0x8_0000_0107, EXIT],
            [0x107b, EXIT],
            [0x017b, EXIT],
            [0x16bf, 0x16bf],
        ] {
            assert!(reads(&program).is_err(), "{program:x?}");
        }
    }
}
