//! Finds the clients that are not crates: those of Python and JavaScript are installed once for
//! each list of versions, those of C, PHP and Ruby come with the system (`make tools`).
//! Errors say what went wrong and what to do about it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Versions of the Python clients.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Versions of the JavaScript clients.
const PACKAGE: &str = include_str!("package.json");
/// The program that is linked with hiredis.
const HIREDIS: &str = include_str!("hiredis.c");

/// The Python that has redis-py and valkey-py.
pub(crate) fn python() -> Result<PathBuf, String> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(install_python);
    PYTHON.clone()
}

/// The directory where node finds node-redis and ioredis.
pub(crate) fn node_modules() -> Result<PathBuf, String> {
    static MODULES: LazyLock<Result<PathBuf, String>> = LazyLock::new(install_node_modules);
    MODULES.clone()
}

/// The program that uses hiredis.
pub(crate) fn hiredis() -> Result<PathBuf, String> {
    let dir = dir("c")?;
    let program = dir.join("hiredis");
    once(&dir, HIREDIS, || {
        let source = dir.join("hiredis.c");
        write(&source, HIREDIS)?;
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-o"]);
        cc.arg(&program).arg(source).arg("-lhiredis");
        run(
            &mut cc,
            "a C compiler and hiredis are needed: `make tools` (libhiredis-dev)",
        )
    })?;
    Ok(program)
}

/// The PHP that has phpredis, and can fork.
pub(crate) fn php() -> Result<PathBuf, String> {
    for (extension, package) in [("pcntl", "php-cli"), ("redis", "php-redis")] {
        let remedy =
            format!("PHP with its extension {extension} is needed: `make tools` ({package})");
        run(Command::new("php").args(["--ri", extension]), &remedy)?;
    }
    Ok(PathBuf::from("php"))
}

/// The Ruby that has redis-rb.
pub(crate) fn ruby() -> Result<PathBuf, String> {
    let remedy = "Ruby with redis-rb is needed: `make tools` (ruby-redis)";
    run(Command::new("ruby").args(["-r", "redis", "-e", ""]), remedy)?;
    Ok(PathBuf::from("ruby"))
}

fn install_python() -> Result<PathBuf, String> {
    let dir = dir("python")?;
    let python = dir.join("venv/bin/python");
    once(&dir, REQUIREMENTS, || {
        let list = dir.join("requirements.txt");
        write(&list, REQUIREMENTS)?;
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(dir.join("venv"));
        run(
            &mut venv,
            "Python 3.10 or later with its module venv is needed: `make tools` (python3-venv)",
        )?;
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ]);
        run(
            pip.arg(list),
            "pip needs a package index: see `pip config list`",
        )
    })?;
    Ok(python)
}

fn install_node_modules() -> Result<PathBuf, String> {
    let dir = dir("node")?;
    once(&dir, PACKAGE, || {
        write(&dir.join("package.json"), PACKAGE)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-package-lock", "--no-audit", "--no-fund"]);
        npm.arg("--loglevel=error").current_dir(&dir);
        run(
            &mut npm,
            "Node.js 20 or later with npm is needed (`make tools`), and a registry (`npm ping`)",
        )
    })?;
    Ok(dir.join("node_modules"))
}

/// Runs `install` unless it went well before for the same list of versions.
fn once(
    dir: &Path,
    versions: &str,
    install: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let installed = dir.join("installed");
    if fs::read_to_string(&installed).is_ok_and(|text| text == versions) {
        return Ok(());
    }
    install()?;
    write(&installed, versions)
}

/// A directory below `target/clients`.
fn dir(name: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let dir = target.with_file_name("clients").join(name);
    fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    Ok(dir)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn run(command: &mut Command, remedy: &str) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}; {remedy}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(format!("{command:?} failed; {remedy}\n{said}"))
}
