//! Generations of the routes in snapshots.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::{Invalid, Part};
use crate::generations::{Generation, Generations, Proposal};
use crate::ids::SessionId;

/// A generation.
#[derive(Clone, PartialEq, Message)]
pub struct SavedGeneration {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(message, repeated, tag = "2")]
    files: Vec<SavedFile>,
    #[prost(string, tag = "3")]
    author: String,
    #[prost(string, tag = "4")]
    comment: String,
    #[prost(uint64, tag = "5")]
    time: u64,
    #[prost(string, repeated, tag = "6")]
    stage: Vec<String>,
}

/// A file of a generation.
#[derive(Clone, PartialEq, Message)]
pub struct SavedFile {
    #[prost(string, tag = "1")]
    path: String,
    #[prost(bytes = "bytes", tag = "2")]
    hash: Bytes,
}

/// A generation that is being prepared, or was rejected.
#[derive(Clone, PartialEq, Message)]
pub struct SavedProposal {
    #[prost(message, optional, tag = "1")]
    generation: Option<SavedGeneration>,
    #[prost(uint64, repeated, tag = "2")]
    missing: Vec<u64>,
    #[prost(message, repeated, tag = "3")]
    problems: Vec<SavedProblem>,
    #[prost(uint64, tag = "4")]
    until: u64,
    #[prost(bool, tag = "5")]
    pub(super) is_rejected: bool,
}

/// Why an instance cannot prepare a generation.
#[derive(Clone, PartialEq, Message)]
pub struct SavedProblem {
    #[prost(uint64, tag = "1")]
    session: u64,
    #[prost(string, tag = "2")]
    problem: String,
}

pub(super) fn generations_of(generations: &Generations) -> impl Iterator<Item = Part> {
    let number = [Part::LastGeneration(generations.last_number())].into_iter();
    // In one order, whatever the contents were added in.
    let mut contents: Vec<_> = generations.contents().collect();
    contents.sort_unstable();
    let contents = contents.into_iter().map(|content| Part::Content(content.clone()));
    let in_force = generations.in_force().map(|generation| Part::Generation(generation_of(generation)));
    let proposal = generations.proposal().map(|proposal| Part::Proposal(proposal_of(proposal, false)));
    let rejected = generations.rejected().map(|rejected| Part::Proposal(proposal_of(rejected, true)));
    let staged = generations.staged().map(|staged| Part::Staged(generation_of(staged)));
    let instances = generations.instances().map(|session| Part::ServesRoutes(session.0));
    number.chain(contents).chain(in_force).chain(proposal).chain(rejected).chain(staged).chain(instances)
}

fn generation_of(generation: &Generation) -> SavedGeneration {
    let file =
        |(path, hash): (&Arc<str>, &[u8; 32])| SavedFile { path: path.to_string(), hash: Bytes::copy_from_slice(hash) };
    SavedGeneration {
        number: generation.number,
        files: generation.files.iter().map(file).collect(),
        author: generation.author.to_string(),
        comment: generation.comment.to_string(),
        time: generation.time,
        stage: generation.stage.iter().map(ToString::to_string).collect(),
    }
}

fn proposal_of(proposal: &Proposal, is_rejected: bool) -> SavedProposal {
    let problem =
        |(session, problem): (&SessionId, &Arc<str>)| SavedProblem { session: session.0, problem: problem.to_string() };
    SavedProposal {
        generation: Some(generation_of(&proposal.generation)),
        missing: proposal.missing.iter().map(|session| session.0).collect(),
        problems: proposal.problems.iter().map(problem).collect(),
        until: proposal.until,
        is_rejected,
    }
}

pub(super) fn read_generation(saved: SavedGeneration) -> Result<Generation, Invalid> {
    let file = |file: SavedFile| {
        let hash = <[u8; 32]>::try_from(&file.hash[..]).map_err(|_| Invalid("a hash of another length"))?;
        Ok((Arc::from(file.path), hash))
    };
    Ok(Generation {
        number: saved.number,
        files: saved.files.into_iter().map(file).collect::<Result<_, _>>()?,
        author: saved.author.into(),
        comment: saved.comment.into(),
        time: saved.time,
        stage: saved.stage.into_iter().map(Arc::from).collect(),
    })
}

pub(super) fn read_proposal(saved: SavedProposal) -> Result<Proposal, Invalid> {
    let generation = saved.generation.ok_or(Invalid("a proposal without its generation"))?;
    let problems = saved.problems.into_iter().map(|of| (SessionId(of.session), of.problem.into()));
    Ok(Proposal {
        generation: Arc::new(read_generation(generation)?),
        missing: saved.missing.into_iter().map(SessionId).collect(),
        problems: problems.collect(),
        until: saved.until,
    })
}
