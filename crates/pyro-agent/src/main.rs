//! The guest program. Runs as PID 1 of a machine and nowhere else.

fn main() -> std::process::ExitCode {
    if rustix::process::getpid().is_init() {
        pyro_agent::init::run()
    } else {
        #[expect(
            clippy::print_stderr,
            reason = "the one thing that this program says outside a machine"
        )]
        {
            eprintln!("pyro-agent is the first process of a machine; it does nothing elsewhere");
        }
        std::process::ExitCode::from(2)
    }
}
