//! Dockerfiles as text: which images are found, and what is written in their place.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn args(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn images(text: &str) -> Vec<String> {
    with(text, &[], None)
}

fn with(text: &str, pairs: &[(&str, &str)], target: Option<&str>) -> Vec<String> {
    let arguments = args(pairs);
    let dockerfile = Dockerfile::parse(text.as_bytes(), &arguments, target).unwrap();
    dockerfile.images().into_iter().map(str::to_owned).collect()
}

fn refused(text: &str) -> DockerfileError {
    Dockerfile::parse(text.as_bytes(), &BTreeMap::new(), None).unwrap_err()
}

fn rewritten(text: &str, pairs: &[(&str, &str)]) -> String {
    let nothing = BTreeMap::new();
    Dockerfile::parse(text.as_bytes(), &nothing, None)
        .unwrap()
        .rewritten(&args(pairs))
}

#[test]
fn stages_are_no_images() {
    let text = "FROM debian:12 AS Build\nFROM scratch\nFROM build\nCOPY --from=BUILD / /\n\
                COPY --chown=1:1 --from=0 / /\nCOPY --from=busybox:1 /bin /bin\n\
                from debian:12\nRUN --mount=type=bind,from=build,target=/x --mount=from=alpine,target=/y ls\n";
    assert_eq!(images(text), ["debian:12", "busybox:1", "alpine"]);
}

#[test]
fn a_stage_is_known_only_behind_its_from() {
    assert_eq!(
        images("FROM later\nFROM debian AS later\n"),
        ["later", "debian"]
    );
}

#[test]
fn arguments_before_the_first_from_are_filled_in() {
    let text = "# syntax=docker/dockerfile:1\nARG V=12 N=\"debian\"\nARG TAG=${V}-slim\nARG EMPTY\n\
                FROM --platform=$BUILDPLATFORM ${N}:${TAG}${EMPTY} AS one\n\
                ARG V=99\nFROM $N:${V}\nFROM ${EMPTY:-alpine}\n";
    assert_eq!(images(text), ["debian:12-slim", "debian:12", "alpine"]);
    let given = [("V", "13"), ("EMPTY", "x"), ("UNDECLARED", "y")];
    assert_eq!(
        with(text, &given, None),
        ["debian:13-slimx", "debian:13", "x"]
    );
    // A value counts only for what is declared.
    let error = Dockerfile::parse(b"FROM $X\n", &args(&[("X", "y")]), None).unwrap_err();
    assert!(error.to_string().contains("no name"), "{error}");
}

#[test]
fn what_cannot_be_resolved_is_left_alone() {
    let text = "ARG A=x\nFROM ${A%y}\nARG B\nCOPY --from=$B / /\n";
    assert_eq!(images(text), [""; 0]);
    assert_eq!(rewritten(text, &[("x", "y")]), text);
}

#[test]
fn continuations_comments_and_escapes() {
    let text = "\u{feff}# a comment\n\n  FROM \\\n# inside\n\n  debian:12 \\  \n  AS one\r\n\
                RUN echo 'FROM no:1' \\\n  && echo \\\\\nCOPY \\\n --from=busybox:1 / /\n\
                # FROM commented\nRUN printf '%s' \"\\\nFROM inside\"\n";
    assert_eq!(images(text), ["debian:12", "busybox:1"]);
    // The directive counts at the top only.
    let windows = "# escape=`\nFROM `\n debian\nRUN dir c:\\\nFROM two\n";
    assert_eq!(images(windows), ["debian", "two"]);
    let late = "FROM a\n# escape=`\nRUN x \\\n FROM b\n";
    assert_eq!(images(late), ["a"]);
    assert!(
        refused("# escape=x\nFROM a\n")
            .to_string()
            .contains("line 1")
    );
}

#[test]
fn names_are_replaced_where_they_stand() {
    let text = "ARG V=1\nFROM --platform=linux/amd64 a:$V AS x\nRUN echo a:1\n\
                COPY --from=a:1 a:1 /\nRUN --mount=type=bind,from=b,source=/b true\nFROM b";
    assert_eq!(
        rewritten(text, &[("a:1", "local/a:1"), ("b", "local/b")]),
        text.replace("--platform=linux/amd64", "")
            .replace("a:$V", "local/a:1")
            .replace("from=a:1", "from=local/a:1")
            .replace("from=b", "from=local/b")
            .replace("FROM b", "FROM local/b")
    );
}

#[test]
fn only_stages_up_to_the_target_count() {
    let text = "FROM a AS one\nCOPY --from=b / /\nFROM c AS two\nCOPY --from=d / /\nFROM e\n";
    assert_eq!(with(text, &[], Some("ONE")), ["a", "b"]);
    assert_eq!(with(text, &[], Some("1")), ["a", "b", "c", "d"]);
    assert_eq!(with(text, &[], Some("2")), ["a", "b", "c", "d", "e"]);
    let error = Dockerfile::parse(text.as_bytes(), &BTreeMap::new(), Some("no")).unwrap_err();
    assert_eq!(error.hint().unwrap(), "it has one, two");
}

#[test]
fn heredocs_hide_what_is_in_them() {
    let text = "FROM a\nRUN <<EOF\nFROM b\nCOPY --from=c / /\nEOF\nRUN cat <<-'X' > /x <<Y\nFROM d\n\tX\nFROM e\nY\n\
                RUN echo $((1 << 2)) \"<<EOF\"\nFROM f\n";
    assert_eq!(images(text), ["a", "f"]);
    assert!(matches!(
        refused("FROM a\nCOPY <<EOF /x\nb\nEOF\n"),
        DockerfileError::Heredoc { line: 2 }
    ));
    assert!(
        refused("FROM a\nRUN <<EOF\nb\n")
            .to_string()
            .contains("no end")
    );
}

#[test]
fn heredocs_become_the_exec_form() {
    let text = "FROM a\nRUN --mount=type=tmpfs,target=/t \\\n  <<EOF\necho \"one\"\n\ttwo\nEOF\n\
                SHELL [\"/bin/bash\", \"-ec\"]\nRUN python3 <<-P > /x\n\tprint(1)\n\tP\nRUN <<-S\n\ta\nS\n";
    let expected = "FROM a\nRUN --mount=type=tmpfs,target=/t \\\n  \
                    [\"/bin/sh\",\"-c\",\"echo \\\"one\\\"\\n\\ttwo\\n\"]\n\
                    SHELL [\"/bin/bash\", \"-ec\"]\n\
                    RUN [\"/bin/bash\",\"-ec\",\"python3 <<-P > /x\\n\\tprint(1)\\nP\\n\"]\n\
                    RUN [\"/bin/bash\",\"-ec\",\"a\\n\"]\n";
    assert_eq!(rewritten(text, &[]), expected);
}

#[test]
fn malformed_files_are_refused_by_line() {
    for (text, part) in [
        ("", "no `FROM`"),
        ("RUN true\n", "line 1"),
        ("ARG a\n\nFROM\n", "line 3"),
        ("FROM a b\n", "line 1"),
        ("FROM a AS\n", "line 1"),
        ("FROM --platform=linux/arm64 a\n", "linux/arm64"),
        ("FROM de\\\nbian\n", "torn apart"),
    ] {
        let error = refused(text);
        assert!(error.to_string().contains(part), "{text:?}: {error}");
    }
    let nothing = BTreeMap::new();
    let parsed = |text: &[u8]| Dockerfile::parse(text, &nothing, None).map(drop);
    assert_eq!(parsed(b"FROM \xff\n"), Err(DockerfileError::NoText));
    assert_eq!(
        parsed(&vec![b'\n'; MAX_DOCKERFILE + 1]),
        Err(DockerfileError::NoText)
    );
    let many = "RUN x\n".repeat(MAX_INSTRUCTIONS);
    assert!(
        refused(&format!("FROM a\n{many}"))
            .to_string()
            .contains("more than")
    );
    let stages = "FROM scratch\n".repeat(MAX_STAGES + 1);
    assert!(refused(&stages).to_string().contains("stages"));
    let images: Vec<String> = (0..=MAX_IMAGES).map(|n| format!("FROM a{n}\n")).collect();
    assert!(refused(&images.concat()).to_string().contains("images"));
}

/// Pieces of Dockerfiles, well and badly formed.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ARG A=",
        "SHELL ",
        "--from=",
        "--mount=type=bind,from=",
        "--platform=",
        "linux/amd64",
        "a:1",
        "b",
        " AS x",
        "x",
        "${A}",
        "$A",
        "${A:-",
        "}",
        "<<EOF",
        "<<-X",
        "EOF",
        "X",
        "\n",
        "\r\n",
        "\\\n",
        "\\",
        "`",
        " ",
        "\t",
        "\"",
        "'",
        "#",
        "# escape=`\n",
        "[",
        "]",
        ",",
        "\u{feff}",
        "é",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in pieces()) {
        let text = format!("FROM a\n{text}");
        let arguments = args(&[("A", "a:1")]);
        if let Ok(dockerfile) = Dockerfile::parse(text.as_bytes(), &arguments, None) {
            let local = dockerfile.images().into_iter().map(|name| (name.to_owned(), "L".to_owned()));
            let local = local.collect();
            let rewritten = dockerfile.rewritten(&local);
            // Each place is replaced once, and what is written then needs nothing else.
            if let Ok(again) = Dockerfile::parse(rewritten.as_bytes(), &arguments, None) {
                prop_assert_eq!(again.images(), ["L"]);
            }
        }
    }
}
