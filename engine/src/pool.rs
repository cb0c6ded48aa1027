//! Memory for captured payload: blocks of one size, recycled.
//!
//! A block has memory of its own, or refers to bytes elsewhere: see [`crate::Payload`].

use bytes::Bytes;

/// Payload bytes that one block holds in its own memory.
pub(crate) const BLOCK: usize = 2008;
/// Memory that one block takes.
pub(crate) const BLOCK_COST: usize = size_of::<Block>();
/// Blocks are made this many at a time.
const SLAB: usize = 64;

/// Names a block of a pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockId(u32);

impl BlockId {
    /// No block.
    pub(crate) const NONE: Self = Self(u32::MAX);
}

struct Block {
    /// Bytes that it refers to in place of its own.
    shared: Bytes,
    next: BlockId,
    /// Of its own bytes, those that are filled.
    filled: u16,
    data: [u8; BLOCK],
}

impl Block {
    fn len(&self) -> usize {
        match self.shared.len() {
            0 => usize::from(self.filled),
            shared => shared,
        }
    }
}

/// All blocks of an engine.
pub(crate) struct BlockPool {
    slabs: Vec<Box<[Block]>>,
    free: BlockId,
    used: usize,
    /// Bytes that blocks refer to.
    shared: usize,
    /// Lent to whoever needs bytes in one piece.
    scratch: Vec<u8>,
}

impl BlockPool {
    /// A pool without blocks; they are made as they are needed.
    pub(crate) const fn new() -> Self {
        Self {
            slabs: Vec::new(),
            free: BlockId::NONE,
            used: 0,
            shared: 0,
            scratch: Vec::new(),
        }
    }

    /// An empty buffer, to be given back by [`BlockPool::give_scratch`].
    pub(crate) fn take_scratch(&mut self) -> Vec<u8> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch
    }

    /// Keeps a buffer for whoever needs one next.
    pub(crate) fn give_scratch(&mut self, scratch: Vec<u8>) {
        self.scratch = scratch;
    }

    /// Memory in use, in bytes.
    pub(crate) const fn memory(&self) -> usize {
        self.used * BLOCK_COST + self.shared
    }

    /// Takes an empty block. `None` only when the address space of blocks is used up: how much
    /// memory may be used is the caller's to watch.
    pub(crate) fn take(&mut self) -> Option<BlockId> {
        if self.free == BlockId::NONE {
            self.grow()?;
        }
        let id = self.free;
        let block = self.block_mut(id)?;
        let next = std::mem::replace(&mut block.next, BlockId::NONE);
        self.free = next;
        self.used += 1;
        Some(id)
    }

    /// Gives a block back.
    pub(crate) fn give(&mut self, id: BlockId) {
        let free = self.free;
        if let Some(block) = self.block_mut(id) {
            block.next = free;
            block.filled = 0;
            let shared = std::mem::take(&mut block.shared).len();
            self.free = id;
            self.used -= 1;
            self.shared -= shared;
        }
    }

    /// The block that follows `id` in its stream.
    pub(crate) fn next(&self, id: BlockId) -> BlockId {
        self.block(id).map_or(BlockId::NONE, |block| block.next)
    }

    /// Puts `next` behind `id`.
    pub(crate) fn link(&mut self, id: BlockId, next: BlockId) {
        if let Some(block) = self.block_mut(id) {
            block.next = next;
        }
    }

    /// The bytes of a block from `start` on, at most `len` of them.
    pub(crate) fn bytes(&self, id: BlockId, start: usize, len: usize) -> &[u8] {
        let Some(block) = self.block(id) else {
            return &[];
        };
        let end = block.len().min(start + len);
        let whole = match block.shared.is_empty() {
            true => &block.data[..],
            false => &block.shared,
        };
        whole.get(start..end).unwrap_or(&[])
    }

    /// How many bytes a block holds.
    pub(crate) fn len(&self, id: BlockId) -> usize {
        self.block(id).map_or(0, Block::len)
    }

    /// Copies as much of `bytes` as fits into a block behind what it holds; gives how much that
    /// was.
    pub(crate) fn write(&mut self, id: BlockId, bytes: &[u8]) -> usize {
        let Some(block) = self.block_mut(id).filter(|it| it.shared.is_empty()) else {
            return 0;
        };
        let room = block.data.get_mut(usize::from(block.filled)..);
        let room = room.unwrap_or_default();
        let len = room.len().min(bytes.len());
        if let Some((to, from)) = room.get_mut(..len).zip(bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        // A block's length fits 16 bits.
        block.filled += len as u16;
        len
    }

    /// Lets an empty block refer to `bytes`.
    pub(crate) fn share(&mut self, id: BlockId, bytes: Bytes) {
        let len = bytes.len();
        if let Some(block) = self.block_mut(id) {
            block.shared = bytes;
            self.shared += len;
        }
    }

    fn grow(&mut self) -> Option<()> {
        let first = u32::try_from(self.slabs.len() * SLAB).ok()?;
        let last = first
            .checked_add(SLAB as u32)
            .filter(|last| *last < u32::MAX)?;
        self.slabs.push(
            (first..last)
                .map(|i| Block {
                    next: if i + 1 < last {
                        BlockId(i + 1)
                    } else {
                        BlockId::NONE
                    },
                    shared: Bytes::new(),
                    filled: 0,
                    data: [0; BLOCK],
                })
                .collect(),
        );
        self.free = BlockId(first);
        Some(())
    }

    fn block(&self, id: BlockId) -> Option<&Block> {
        let index = id.0 as usize;
        self.slabs.get(index / SLAB)?.get(index % SLAB)
    }

    fn block_mut(&mut self, id: BlockId) -> Option<&mut Block> {
        let index = id.0 as usize;
        self.slabs.get_mut(index / SLAB)?.get_mut(index % SLAB)
    }
}
