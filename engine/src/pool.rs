//! Memory for captured payload: blocks of one size, recycled, never more than the limit.

/// Payload bytes that one block holds. Two blocks hold the largest segment that is sent on a
/// link with an MTU of 1500, wherever in the first block it begins.
pub(crate) const BLOCK: usize = 2044;
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
    next: BlockId,
    data: [u8; BLOCK],
}

/// All blocks of an engine.
pub(crate) struct BlockPool {
    slabs: Vec<Box<[Block]>>,
    free: BlockId,
    used: usize,
}

impl BlockPool {
    /// A pool without blocks; they are made as they are needed.
    pub(crate) const fn new() -> Self {
        Self {
            slabs: Vec::new(),
            free: BlockId::NONE,
            used: 0,
        }
    }

    /// Blocks in use.
    pub(crate) const fn used(&self) -> usize {
        self.used
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
            self.free = id;
            self.used -= 1;
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

    /// The bytes `start..end` of a block; empty when that is not inside it.
    pub(crate) fn bytes(&self, id: BlockId, start: usize, end: usize) -> &[u8] {
        self.block(id)
            .and_then(|block| block.data.get(start..end))
            .unwrap_or(&[])
    }

    /// Copies as much of `bytes` as fits into a block from `start` on; gives how much that was.
    pub(crate) fn write(&mut self, id: BlockId, start: usize, bytes: &[u8]) -> usize {
        let Some(room) = self
            .block_mut(id)
            .and_then(|block| block.data.get_mut(start..))
        else {
            return 0;
        };
        let len = room.len().min(bytes.len());
        if let Some((to, from)) = room.get_mut(..len).zip(bytes.get(..len)) {
            to.copy_from_slice(from);
        }
        len
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
