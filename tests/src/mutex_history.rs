//! Checks histories of fenced locks: an owner-aware model of a mutex whose holders can lose it.
//!
//! A hold begins when its owner learns of the grant, and ends when the owner releases it, or can no longer know that it holds it because its
//! session was not kept alive. Until then, nobody else may learn of a grant; and a grant that is asked for after another one was known has a
//! higher token. A hold that ends by itself is none of the next owner's business: what is done then is rejected by its token.

use std::time::Instant;

/// A lock that was held.
#[derive(Debug, Clone)]
pub struct Hold {
    /// Who held it.
    pub owner: String,
    /// The fencing token.
    pub token: u64,
    /// When it was asked for.
    pub asked: Instant,
    /// When the owner learned that it held it.
    pub granted: Instant,
    /// Until when the owner believed to hold it: when it began to release it, or found that it may be lost.
    pub until: Instant,
}

/// Checks the holds of one lock.
///
/// # Errors
/// Describes the first violation.
pub fn check(holds: &[Hold]) -> Result<(), String> {
    let mut by_token: Vec<&Hold> = holds.iter().collect();
    by_token.sort_by_key(|hold| hold.token);
    for pair in by_token.windows(2) {
        let [first, second] = pair else { continue };
        if first.token == second.token {
            return Err(format!("{first:?} and {second:?} have the same token"));
        }
    }
    for (at, first) in by_token.iter().enumerate() {
        for second in &by_token[at + 1..] {
            if second.granted < first.until && first.granted < second.until {
                return Err(format!("{first:?} and {second:?} believe to hold the lock at the same time"));
            }
            if first.asked > second.granted {
                return Err(format!("{first:?} was asked for after {second:?} was known, and has a lower token"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hold(token: u64, asked: u64, granted: u64, until: u64) -> Hold {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        Hold { owner: "a".to_owned(), token, asked: at(asked), granted: at(granted), until: at(until) }
    }

    #[test]
    fn holds_are_one_after_another_and_tokens_rise() {
        let of = |times: [(u64, u64, u64, u64); 2]| {
            let begun = Instant::now();
            let at = |millis| begun + Duration::from_millis(millis);
            let hold = |(token, asked, granted, until): (u64, u64, u64, u64)| Hold {
                owner: token.to_string(),
                token,
                asked: at(asked),
                granted: at(granted),
                until: at(until),
            };
            check(&times.map(hold))
        };
        assert!(check(&[]).is_ok() && check(&[hold(1, 0, 1, 2)]).is_ok());
        assert!(of([(1, 0, 10, 20), (2, 5, 20, 30)]).is_ok());
        assert!(of([(1, 0, 10, 20), (2, 5, 19, 30)]).is_err(), "they overlap");
        assert!(of([(2, 0, 10, 20), (1, 15, 30, 40)]).is_err(), "a token does not rise");
        assert!(of([(1, 0, 10, 20), (1, 15, 30, 40)]).is_err(), "a token twice");
    }
}
