//! Loading a whole table anew, invisibly to readers; it knows neither where records come from nor files.

use locus_proto::{Change, Position};

use crate::header::{self, Mark};
use crate::layout::AT_STATE;
use crate::plan::AT_ONCE;
use crate::writer::STATE_LIVE;
use crate::{FinishLoadError, Memory, PrepareError, Word, Writer};

impl<M: Memory> Writer<M> {
    /// Loads changes in their order, without journal and without a check of content.
    ///
    /// Records of a snapshot and the frames that follow it; a key may come any number of times.
    ///
    /// # Errors
    /// [`PrepareError`] if one does not fit; those before it are loaded.
    ///
    /// # Panics
    /// After [`Self::finish_load`]: a live table takes batches only.
    pub fn load(&mut self, changes: &[Change]) -> Result<(), PrepareError> {
        assert!(self.loading, "a live table takes batches only");
        for some in changes.chunks(AT_ONCE) {
            let hashes = self.hash_all(some);
            for (change, hash) in some.iter().zip(hashes) {
                let step = self.plan_one(change, hash)?;
                self.execute(change, &step);
                let account = self.mark.account().plus(step.come).minus(step.gone);
                self.mark = self.mark.with(account);
            }
        }
        Ok(())
    }

    /// Ends the load: the table stands at `to`, readers can open it, and it takes batches.
    ///
    /// # Errors
    /// [`FinishLoadError`] if its content is not that of `to`; the table stays invisible.
    ///
    /// # Panics
    /// If the load has ended before.
    pub fn finish_load(&mut self, to: Position) -> Result<(), FinishLoadError> {
        assert!(self.loading, "a load ends once");
        let have = self.mark.position.root;
        if have != to.root {
            return Err(FinishLoadError {
                records: self.mark.records,
                level: to.level,
                have,
                got: to.root,
            });
        }
        self.mark = Mark {
            position: to,
            ..self.mark
        };
        let words = self.memory.words();
        header::store_mark(words, self.sequence, self.mark);
        words[AT_STATE].store_release(STATE_LIVE);
        self.loading = false;
        Ok(())
    }
}
