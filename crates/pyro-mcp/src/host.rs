//! How hosts of MCP servers are told to start this one.

use std::path::PathBuf;

use serde_json::json;

use crate::options::{Profile, ProjectSource};

/// The name under which hosts know the server.
const NAME: &str = "pyro";

/// A host of MCP servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// Claude Code: a command that adds the server.
    ClaudeCode,
    /// Codex: a command that adds the server.
    Codex,
    /// OpenCode: a part of `opencode.json`.
    OpenCode,
    /// Any other: the `mcpServers` object that most have.
    Generic,
}

/// How the server is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCommand {
    /// The program.
    pub program: String,
    /// Which tools it has.
    pub profile: Profile,
    /// What workspaces begin with; none: the checkout that the host starts it in.
    pub project: Option<ProjectSource>,
    /// The environment of workspaces that name none; none: the server's own default.
    pub environment: Option<String>,
    /// Directories of this host that tools may use.
    pub allowed: Vec<PathBuf>,
}

impl ServerCommand {
    /// What the host is given: a command line for a shell, or JSON.
    pub fn config(&self, host: Host) -> String {
        match host {
            Host::ClaudeCode => self.added_with("claude"),
            Host::Codex => self.added_with("codex"),
            Host::OpenCode => {
                let mut command = vec![self.program.clone()];
                command.extend(self.arguments());
                let server = json!({"type": "local", "enabled": true, "command": command});
                format!("{:#}\n", json!({"mcp": {NAME: server}}))
            }
            Host::Generic => {
                let server = json!({"command": self.program, "args": self.arguments()});
                format!("{:#}\n", json!({"mcpServers": {NAME: server}}))
            }
        }
    }

    fn added_with(&self, program: &str) -> String {
        let words = std::iter::once(self.program.clone()).chain(self.arguments());
        let words: Vec<String> = words.map(|word| quoted(&word)).collect();
        format!("{program} mcp add {NAME} -- {}\n", words.join(" "))
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["mcp".to_owned(), "serve".to_owned()];
        let mut add = |flag: &str, value: Option<String>| {
            arguments.push(flag.to_owned());
            arguments.extend(value);
        };
        match self.profile {
            Profile::WorkspaceCore => {}
            Profile::VmRun => add("--profile", Some(self.profile.as_str().to_owned())),
        }
        match &self.project {
            None => {}
            Some(ProjectSource::None) => add("--no-project-source", None),
            Some(ProjectSource::Path(path)) => {
                add("--project-path", Some(path.display().to_string()));
            }
            Some(ProjectSource::Repository { url, git_ref }) => {
                add("--repo-url", Some(url.clone()));
                if let Some(git_ref) = git_ref {
                    add("--repo-ref", Some(git_ref.clone()));
                }
            }
        }
        if let Some(environment) = &self.environment {
            add("--environment", Some(environment.clone()));
        }
        for directory in &self.allowed {
            add("--allow-dir", Some(directory.display().to_string()));
        }
        arguments
    }
}

/// A word as a POSIX shell reads it.
fn quoted(word: &str) -> String {
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "%+,-./:=@_".contains(character);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> ServerCommand {
        ServerCommand {
            program: "/opt/my tools/pyro".into(),
            profile: Profile::WorkspaceCore,
            project: Some(ProjectSource::Path("/srv/me/it's".into())),
            environment: Some("debian:12".into()),
            allowed: vec!["/srv/out".into()],
        }
    }

    #[test]
    fn each_host_is_told_in_its_own_way() {
        let told = |host| command().config(host);
        insta::assert_snapshot!(
            [Host::ClaudeCode, Host::Codex, Host::OpenCode, Host::Generic]
                .map(told)
                .join("\n")
        );
    }

    #[test]
    fn what_is_the_default_is_not_told() {
        let plain = ServerCommand {
            program: "pyro".into(),
            profile: Profile::WorkspaceCore,
            project: None,
            environment: None,
            allowed: Vec::new(),
        };
        assert_eq!(
            plain.config(Host::Codex),
            "codex mcp add pyro -- pyro mcp serve\n"
        );
        let repository = ProjectSource::Repository {
            url: "https://example.com/a.git".into(),
            git_ref: Some("v1".into()),
        };
        let one_shot = ServerCommand {
            profile: Profile::VmRun,
            project: Some(repository),
            ..plain.clone()
        };
        assert_eq!(
            one_shot.config(Host::ClaudeCode),
            "claude mcp add pyro -- pyro mcp serve --profile vm-run \
             --repo-url https://example.com/a.git --repo-ref v1\n"
        );
        let nothing = ServerCommand {
            project: Some(ProjectSource::None),
            ..plain
        };
        assert!(
            nothing
                .config(Host::Codex)
                .ends_with("serve --no-project-source\n")
        );
    }
}
