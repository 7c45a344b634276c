//! `vm_run`: one command in a machine that is thrown away, also when nobody wants its result any more.

use std::time::Duration;

use pyro::run::Outcome;
use pyro::{ExecOutput, Program, Run, RunEvent, RunOptions};
use serde_json::Value;

use super::{Call, arguments, told};
use crate::cap;
use crate::failure::Failure;

/// Runs it.
pub(super) async fn vm_run(call: &Call<'_>, given: arguments::VmRun) -> Result<Value, Failure> {
    refuse_host(given.allow_host_compat)?;
    let environment = call.environment(given.environment).await?;
    let options = RunOptions {
        vcpu_count: given.vcpu_count,
        mem_mib: given.mem_mib,
        timeout: Duration::from_secs(given.timeout_seconds),
        ttl: Duration::from_secs(given.ttl_seconds),
        network: given.network,
        ..RunOptions::new(environment, Program::shell(given.command))
    };
    let sink = call.told.sink();
    let begin = Box::pin(async { Ok(call.server.pyro.run(options, &sink).await?) });
    let mut run = call.unless_cancelled(begin).await?;
    let mut outcome = Outcome::default();
    let end = loop {
        let event = tokio::select! {
            event = run.next() => event,
            () = call.cancelled() => {
                run.cancel().await;
                return Err(Failure::Cancelled);
            }
        };
        match event {
            Ok(RunEvent::Output(ExecOutput::End(end))) => break end,
            Ok(RunEvent::Output(output)) => outcome.push(&output),
            Ok(RunEvent::Phase(phase)) => call.told.say(phase),
            Ok(RunEvent::Executing) => call.told.say("executing".into()),
            Err(error) => {
                Run::cancel(run).await;
                return Err(error.into());
            }
        }
    };
    let mut payload = told(&run.finish(outcome, end).await?)?;
    cap_outputs(&mut payload, call.options().max_text);
    Ok(payload)
}

/// Commands never run on the host.
pub(super) fn refuse_host(asked_for: bool) -> Result<(), Failure> {
    if asked_for {
        return Err(Failure::arguments(
            "`allow_host_compat` can only be false: commands never run on the host",
            "leave it out",
        ));
    }
    Ok(())
}

/// Cuts both outputs, and says so.
pub(super) fn cap_outputs(payload: &mut Value, max: usize) {
    let mut truncated = false;
    for stream in ["stdout", "stderr"] {
        let (text, cut) = cap::head_and_tail(payload[stream].as_str().unwrap_or_default(), max);
        payload[stream] = text.into();
        truncated |= cut;
    }
    if truncated {
        payload["truncated"] = true.into();
    }
    if let Some(fields) = payload.as_object_mut() {
        // A model reads text.
        fields.retain(|name, _| name != "stdout_b64" && name != "stderr_b64");
    }
}
