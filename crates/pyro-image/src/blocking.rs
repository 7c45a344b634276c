//! Work that blocks, on a thread beside the tasks of the runtime.

/// Runs `work` on a thread of the runtime's pool. Dropping the future does not end the work: what
/// takes long asks whether it is still wanted. A panic of the work goes on in the caller.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Nobody aborts the task, so it has panicked.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_outcome_or_the_panic_of_the_work_is_the_callers() {
        assert_eq!(blocking(|| 1 + 1).await, 2);
        let panicked = tokio::spawn(blocking(|| panic!("told"))).await;
        assert!(panicked.unwrap_err().is_panic());
    }
}
