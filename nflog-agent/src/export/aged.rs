//! Connections that are replaced when they get old: the name is resolved anew, and a collector that was scaled out gets its part.
//!
//! What is in flight on the old one ends there, because each request holds a clone.

use std::convert::Infallible;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Age at which a connection is replaced, at least; at most half as much again, so that a cluster's agents do not all connect at once.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(240);

/// What is made when it is needed and replaced when it is old.
#[derive(Debug)]
pub(crate) struct Aged<T> {
    current: Mutex<Option<(T, Instant)>>,
    max_age: Duration,
}

impl<T: Clone> Aged<T> {
    pub(crate) const fn new(max_age: Duration) -> Self {
        Self {
            current: Mutex::new(None),
            max_age,
        }
    }

    /// The current one, made if there is none or it is old.
    pub(crate) fn get(&self, now: Instant, make: impl FnOnce() -> T) -> T {
        let Ok(current) = self.try_get(now, || Ok::<_, Infallible>(make()));
        current
    }

    /// Likewise.
    ///
    /// # Errors
    /// That of `make`.
    pub(crate) fn try_get<E>(&self, now: Instant, make: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, until)) = &*current
            && now < *until
        {
            return Ok(known.clone());
        }
        let more = RandomState::new().build_hasher().finish() % 512;
        let until = now + self.max_age + self.max_age.mul_f64(f64::from(more as u16) / 1024.0);
        let (made, _) = current.insert((make()?, until));
        Ok(made.clone())
    }

    /// Has the next one made anew.
    pub(crate) fn forget(&self) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_one_is_replaced_between_the_age_and_half_as_much_again() {
        let aged = Aged::new(MAX_AGE);
        let start = Instant::now();
        assert_eq!(aged.get(start, || 1), 1);
        assert_eq!(aged.get(start + MAX_AGE - Duration::from_millis(1), || 2), 1);
        assert_eq!(aged.get(start + MAX_AGE.mul_f64(1.5), || 3), 3);
        aged.forget();
        assert_eq!(aged.get(start, || 4), 4);
    }
}
