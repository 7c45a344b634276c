//! The guest program. Runs as PID 1 of a machine and nowhere else, but tells which build it is:
//! it is the one program that a machine is sure to have, so the host runs it to see that commands
//! run.

fn main() -> std::process::ExitCode {
    if rustix::process::getpid().is_init() {
        pyro_agent::init::run()
    } else if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == "--version")
    {
        #[expect(
            clippy::print_stdout,
            reason = "the answer of a program that was asked"
        )]
        {
            println!("{}", pyro_agent::BUILD_ID);
        }
        std::process::ExitCode::SUCCESS
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
