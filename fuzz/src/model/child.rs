//! A child that joins the pool, works, and dies without a farewell.

use super::{BLOCK_SIZE, kind};
use crate::world;
use mainstay_pool::{BlockId, Error, Kind, Pool, Result, Uuid};
use rustix::{pipe::pipe, process};
use std::{
    fs::File,
    io::{Read, Write},
};

/// What a child does before it dies.
pub(super) struct LastWill {
    pub(super) transient: u8,
    pub(super) count: u8,
    pub(super) attach: Option<BlockId>,
    pub(super) doom: bool,
}

/// What the child says it did.
#[derive(Default)]
pub(super) struct Testament {
    pub(super) allocated: Vec<(BlockId, Uuid, Kind)>,
    pub(super) attached: bool,
}

impl LastWill {
    /// Joins the pool in a child of this process, which then dies without a farewell.
    pub(super) fn carried_out_in_a_child(&self, file: &File) -> Testament {
        let (from, to) = pipe().expect("descriptors are left");
        // SAFETY: the targets have one thread that uses memory or locks; the child leaves by
        // `_exit` and runs no destructor of its parent.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "a child can be made");
        if pid == 0 {
            let mut to = File::from(to);
            let done = self.carry_out(file, &mut to);
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(done.is_err())) };
        }
        drop(to);
        let mut told = Vec::new();
        File::from(from).read_to_end(&mut told).expect("a pipe can be read");
        let pid = process::Pid::from_raw(pid).expect("a child has a number");
        let status = process::waitpid(Some(pid), process::WaitOptions::empty());
        let (_, status) = status.expect("it is ours").expect("it has ended");
        assert_eq!(status.exit_status(), Some(0), "the child did what it should");
        Testament::parse(&told)
    }

    fn carry_out(&self, file: &File, to: &mut File) -> Result<()> {
        let pool = Pool::join_any_fd(world::duplicate(file))?;
        let mut tell = |tag: u8, id: BlockId, uuid: Uuid| {
            let mut line = [0; 32];
            line[0] = tag;
            line[4..8].copy_from_slice(&id.number.to_le_bytes());
            line[8..16].copy_from_slice(&id.generation.to_le_bytes());
            line[16..].copy_from_slice(uuid.as_bytes());
            to.write_all(&line).expect("a pipe takes this much");
        };
        let attached = self.attach.map(|id| pool.attach(id));
        if let Some(Ok(block)) = attached {
            tell(2, block.id(), block.uuid());
            let twice = block.try_clone()?;
            if self.doom {
                twice.free()?;
            }
            std::mem::forget(block);
        }
        for i in 0..self.count {
            let kind = kind(self.transient & 1 << i != 0);
            let block = match pool.allocate(kind) {
                Ok(block) => block,
                Err(Error::Full { .. }) => break,
                Err(error) => return Err(error),
            };
            block.write(0, &[block.number() as u8 | 1; BLOCK_SIZE])?;
            tell(u8::from(kind == Kind::Transient), block.id(), block.uuid());
            std::mem::forget(block);
        }
        std::mem::forget(pool);
        Ok(())
    }
}

impl Testament {
    fn parse(told: &[u8]) -> Self {
        let mut testament = Self::default();
        for line in told.chunks_exact(32) {
            let number = u32::from_le_bytes(line[4..8].try_into().expect("four bytes"));
            let generation = u64::from_le_bytes(line[8..16].try_into().expect("eight bytes"));
            let uuid = Uuid::from_bytes(line[16..].try_into().expect("sixteen bytes"));
            let id = BlockId { number, generation };
            match line[0] {
                2 => testament.attached = true,
                tag => testament.allocated.push((id, uuid, kind(tag == 1))),
            }
        }
        testament
    }
}
