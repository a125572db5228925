//! Generations of the routes: one version of the route files for all instances.
//!
//! A generation is proposed with all its files. Each instance that serves routes prepares it – reads and checks it, and opens what it
//! needs – and says so, or why it cannot. When the last one has, the generation is in force, for all instances with the same
//! command; if one cannot or does not answer in time, it is rejected, and nothing changes.
//!
//! A generation can be staged: once all have prepared it, some instances serve it, until its files are proposed for all, or it is
//! withdrawn. Nothing else can be proposed meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use rpds::{HashTrieMapSync, RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::answer::{Outcome, Refusal};
use crate::command::{Prepared, Propose};
use crate::context::{Context, Timer};
use crate::event::Event;
use crate::ids::SessionId;
use crate::injected_bug::InjectedBug;
use crate::limits::{
    COMMENT_BYTES_MAX, FILES_BYTES_MAX, FILES_MAX, GENERATIONS_MAX, NAME_BYTES_MAX, PREPARE_MS_MAX, PROBLEM_BYTES_MAX,
    PROBLEMS_BYTES_MAX, STAGE_MAX,
};

/// The SHA-256 of the content of a file.
pub type Hash = [u8; 32];

/// A generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number: that of the first one is 1, and later ones have higher numbers.
    pub number: u64,
    /// Its files by path, relative to the folder of the settings.
    pub files: BTreeMap<Arc<str>, Hash>,
    /// Who proposed it.
    pub author: Arc<str>,
    /// Why, for operators.
    pub comment: Arc<str>,
    /// When it was proposed: the leader's time, in milliseconds since the Unix epoch.
    pub time: u64,
    /// The labels of the sessions of the instances that serve it before the others do; none if it is for all.
    pub stage: BTreeSet<Arc<str>>,
}

/// A generation that instances are preparing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The generation.
    pub generation: Arc<Generation>,
    /// The instances that have not answered.
    pub missing: BTreeSet<SessionId>,
    /// Why instances cannot prepare it.
    pub problems: BTreeMap<SessionId, Arc<str>>,
    /// When it is rejected, by the state's clock.
    pub until: u64,
}

/// All generations.
#[derive(Debug, Clone, Default)]
pub struct Generations {
    /// Those in force, one after another; the last one is in force now. The oldest are forgotten.
    in_force: RedBlackTreeMapSync<u64, Arc<Generation>>,
    contents: HashTrieMapSync<Hash, Bytes>,
    proposal: Option<Arc<Proposal>>,
    /// The one that some instances serve.
    staged: Option<Arc<Generation>>,
    /// The last one that was rejected.
    rejected: Option<Arc<Proposal>>,
    /// The instances that serve routes.
    instances: RedBlackTreeSetSync<SessionId>,
    last_number: u64,
}

impl Generations {
    /// The generation in force; `None` if none was proposed yet, so that each instance has its own routes.
    #[must_use]
    pub fn current(&self) -> Option<&Arc<Generation>> {
        self.in_force.last().map(|(_, generation)| generation)
    }

    /// The one that some instances serve instead, before it is proposed for all.
    #[must_use]
    pub fn staged(&self) -> Option<&Arc<Generation>> {
        self.staged.as_ref()
    }

    /// The one that the instance whose session has this label serves.
    #[must_use]
    pub fn of_instance(&self, label: &str) -> Option<&Arc<Generation>> {
        self.staged().filter(|staged| staged.stage.contains(label)).or_else(|| self.current())
    }

    /// The generations that are or were in force, oldest first.
    pub fn in_force(&self) -> impl Iterator<Item = &Arc<Generation>> {
        self.in_force.values()
    }

    /// One of them.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&Arc<Generation>> {
        self.in_force.get(&number)
    }

    /// The one that instances are preparing.
    #[must_use]
    pub fn proposal(&self) -> Option<&Arc<Proposal>> {
        self.proposal.as_ref()
    }

    /// The last one that was rejected, with the reasons.
    #[must_use]
    pub fn rejected(&self) -> Option<&Arc<Proposal>> {
        self.rejected.as_ref()
    }

    /// The instances that serve routes.
    pub fn instances(&self) -> impl Iterator<Item = SessionId> {
        self.instances.iter().copied()
    }

    /// The content of a file.
    #[must_use]
    pub fn content(&self, hash: &Hash) -> Option<&Bytes> {
        self.contents.get(hash)
    }

    /// All contents, for snapshots.
    pub(crate) fn contents(&self) -> impl Iterator<Item = &Bytes> {
        self.contents.values()
    }

    pub(crate) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Proposes a generation, for an existing session. Proposing the same one again has no effect, while it is being prepared or in force.
    pub(crate) fn propose(&mut self, command: Propose, time: u64, context: &mut Context<'_>) -> Outcome {
        if let Err(refusal) = check(&command) {
            return refusal.into();
        }
        let current = self.current().map_or(0, |current| current.number);
        let contents: Vec<_> = command.files.iter().map(|file| (hash_of(&file.content), file)).collect();
        let files: BTreeMap<Arc<str>, Hash> =
            contents.iter().map(|(hash, file)| (Arc::from(file.path.as_str()), *hash)).collect();
        let stage: BTreeSet<Arc<str>> = command.stage.iter().map(|label| Arc::from(label.as_str())).collect();
        let is_same =
            |known: &Generation| known.files == files && *known.comment == *command.comment && known.stage == stage;
        if let Some(proposal) = &self.proposal {
            let is_same = is_same(&proposal.generation);
            return if is_same { Outcome::Proposed(proposal.generation.number) } else { Refusal::InUse.into() };
        }
        if let Some(staged) = &self.staged {
            if is_same(staged) {
                return Outcome::Proposed(staged.number);
            }
            if staged.files != files {
                return Refusal::InUse.into();
            }
        }
        if command.base != current && !context.has_bug(InjectedBug::StaleBase) {
            let repeated = self.current().filter(|current| is_same(current));
            return repeated.map_or(Refusal::OtherBase.into(), |current| Outcome::Proposed(current.number));
        }
        if current == 0 && !stage.is_empty() {
            // There would be none for the others, nor after a withdrawal.
            return Refusal::InUse.into();
        }
        for (hash, file) in contents {
            // A slice of the command would keep all of it in memory.
            self.contents.insert_mut(hash, Bytes::copy_from_slice(&file.content));
        }
        self.last_number += 1;
        let (author, comment) = (command.author.into(), command.comment.into());
        let generation = Arc::new(Generation { number: self.last_number, files, author, comment, time, stage });
        let until = context.now.saturating_add(command.timeout_ms);
        let missing = self.instances.iter().copied().collect();
        self.proposal = Some(Arc::new(Proposal { generation, missing, problems: BTreeMap::new(), until }));
        context.set_timer(Timer::Proposal, until);
        context.tell(Event::GenerationProposed(self.last_number));
        self.decide(context);
        Outcome::Proposed(self.last_number)
    }

    /// Adds an instance that serves routes, whose session exists. It prepares what is proposed, as the others do.
    pub(crate) fn join(&mut self, session: SessionId) -> Outcome {
        if !self.instances.contains(&session) {
            self.instances.insert_mut(session);
            if let Some(proposal) = &mut self.proposal {
                Arc::make_mut(proposal).missing.insert(session);
            }
        }
        Outcome::DONE
    }

    /// Ends the stage of a generation: all instances serve the one in force.
    pub(crate) fn withdraw(&mut self, number: u64, context: &mut Context<'_>) -> Outcome {
        if self.proposal.is_some() {
            return Refusal::InUse.into();
        }
        if self.staged.take_if(|staged| staged.number == number).is_none() {
            return Refusal::Finished.into();
        }
        context.tell(Event::GenerationWithdrawn(number));
        self.forget_contents();
        Outcome::DONE
    }

    /// Notes that an instance has prepared the proposal, or cannot.
    pub(crate) fn prepared(&mut self, command: &Prepared, context: &mut Context<'_>) -> Outcome {
        if command.problem.len() > PROBLEM_BYTES_MAX {
            return Refusal::Invalid.into();
        }
        let session = SessionId(command.session);
        let Some(proposal) = self.proposal.as_mut().filter(|of| of.generation.number == command.number) else {
            return Refusal::Finished.into();
        };
        let proposal = Arc::make_mut(proposal);
        if proposal.missing.remove(&session) && !command.problem.is_empty() {
            let kept: usize = proposal.problems.values().map(|problem| problem.len()).sum();
            let is_kept = kept + command.problem.len() <= PROBLEMS_BYTES_MAX;
            let problem = if is_kept { command.problem.as_str() } else { "see its log" };
            proposal.problems.insert(session, problem.into());
        }
        self.decide(context);
        Outcome::DONE
    }

    /// Removes an instance whose session has ended. If it could not prepare the proposal, that is not forgotten: it will need it when
    /// it is back.
    pub(crate) fn end_session(&mut self, session: SessionId, context: &mut Context<'_>) {
        if !self.instances.remove_mut(&session) {
            return;
        }
        if let Some(proposal) = &mut self.proposal {
            let proposal = Arc::make_mut(proposal);
            proposal.missing.remove(&session);
            if context.has_bug(InjectedBug::ForgetProblem) {
                proposal.problems.remove(&session);
            }
        }
        self.decide(context);
    }

    /// The time to prepare the proposal is over.
    pub(crate) fn time_out(&mut self, context: &mut Context<'_>) {
        if let Some(proposal) = &mut self.proposal {
            let proposal = Arc::make_mut(proposal);
            for session in std::mem::take(&mut proposal.missing) {
                proposal.problems.insert(session, "it did not answer in time".into());
            }
        }
        self.decide(context);
    }

    /// Puts the proposal into force, or rejects it, once all instances have answered.
    fn decide(&mut self, context: &mut Context<'_>) {
        let is_early = context.has_bug(InjectedBug::SwitchEarly);
        let Some(proposal) = self.proposal.take_if(|of| of.missing.is_empty() || is_early) else { return };
        context.cancel_timer(&Timer::Proposal);
        let number = proposal.generation.number;
        let is_for_all = proposal.generation.stage.is_empty() || context.has_bug(InjectedBug::StagedInForce);
        if proposal.problems.is_empty() && !is_for_all {
            self.staged = Some(Arc::clone(&proposal.generation));
            context.tell(Event::GenerationStaged(number));
        } else if proposal.problems.is_empty() {
            self.staged = None;
            self.in_force.insert_mut(number, Arc::clone(&proposal.generation));
            if self.in_force.size() > GENERATIONS_MAX
                && let Some(oldest) = self.in_force.first().map(|(number, _)| *number)
            {
                self.in_force.remove_mut(&oldest);
            }
            context.tell(Event::GenerationInForce(number));
        } else {
            self.rejected = Some(proposal);
            context.tell(Event::GenerationRejected(number));
        }
        self.forget_contents();
    }

    /// Forgets what no generation needs.
    fn forget_contents(&mut self) {
        let generations = self.in_force.values().chain(self.staged.as_ref());
        let needed: BTreeSet<Hash> = generations.flat_map(|generation| generation.files.values()).copied().collect();
        let unneeded: Vec<_> = self.contents.keys().filter(|hash| !needed.contains(*hash)).copied().collect();
        for hash in unneeded {
            self.contents.remove_mut(&hash);
        }
    }

    pub(crate) fn put_last_number(&mut self, number: u64) {
        self.last_number = number;
    }

    pub(crate) fn put_content(&mut self, content: &[u8]) {
        self.contents.insert_mut(hash_of(content), Bytes::copy_from_slice(content));
    }

    pub(crate) fn put_instance(&mut self, session: SessionId) {
        self.instances.insert_mut(session);
    }

    pub(crate) fn put_generation(&mut self, generation: Generation) {
        self.in_force.insert_mut(generation.number, Arc::new(generation));
    }

    pub(crate) fn put_staged(&mut self, generation: Generation) {
        self.staged = Some(Arc::new(generation));
    }

    pub(crate) fn put_proposal(&mut self, proposal: Proposal, is_rejected: bool, context: &mut Context<'_>) {
        if is_rejected {
            self.rejected = Some(Arc::new(proposal));
        } else {
            context.set_timer(Timer::Proposal, proposal.until);
            self.proposal = Some(Arc::new(proposal));
        }
    }
}

/// The SHA-256 of a content.
#[must_use]
pub fn hash_of(content: &[u8]) -> Hash {
    let digest = ring::digest::digest(&ring::digest::SHA256, content);
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

/// The hexadecimal text of the [`hash_of`] a content, in lower case.
#[must_use]
pub fn hex_of(hash: &Hash) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a path names a file below the folder of the settings, on all systems.
fn is_valid_path(path: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains(['\\', ':', '\0']);
    path.len() <= NAME_BYTES_MAX && path.split('/').all(is_name)
}

fn check(command: &Propose) -> Result<(), Refusal> {
    let bytes: usize = command.files.iter().map(|file| file.content.len() + file.path.len()).sum();
    let paths: BTreeSet<_> = command.files.iter().map(|file| &file.path).collect();
    let is_valid = (1..=FILES_MAX).contains(&command.files.len())
        && bytes <= FILES_BYTES_MAX
        && paths.len() == command.files.len()
        && paths.iter().all(|path| is_valid_path(path))
        && command.author.len() <= NAME_BYTES_MAX
        && command.comment.len() <= COMMENT_BYTES_MAX
        && command.stage.len() <= STAGE_MAX
        && command.stage.iter().all(|label| (1..=NAME_BYTES_MAX).contains(&label.len()))
        && (1..=PREPARE_MS_MAX).contains(&command.timeout_ms);
    if is_valid { Ok(()) } else { Err(Refusal::Invalid) }
}
