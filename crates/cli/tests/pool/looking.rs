//! Making pools, and looking at them.

use crate::calls::unchanged;
use crate::sandbox::{Run, Sandbox};
use mainstay::pool::{Kind, Pool, PoolView};
use std::{fs, process::Stdio};

#[test]
fn a_new_pool_is_listed_filled_and_shown() {
    let sandbox = Sandbox::new();
    assert!(sandbox.ok(&["ls"]).starts_with("no pools in "));
    let created = sandbox.ok(&["create", "calls", "--block-size", "256", "--max-blocks", "8192"]);
    assert!(created.contains("blocks of 256 B, up to 8,192 of them"), "{created}");
    assert!(sandbox.ok(&["fill", "calls", "--blocks", "100"]).starts_with("filled 100 blocks"));

    let listed = sandbox.ok(&["ls"]);
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..7], ["calls", "256", "B", "4,096", "0", "100", "0"], "{listed}");

    let info = sandbox.ok(&["info", "calls"]);
    for line in
        ["parked                                100", "mappings                              1"]
    {
        assert!(info.lines().any(|found| found == line), "{line:?} is not in {info}");
    }
    let shown = sandbox.ok(&["show", "calls", "--limit", "7"]);
    assert_eq!(shown.lines().count(), 1 + 7 + 1, "{shown}");
    assert!(shown.ends_with("... and 93 more: --limit 0 shows all\n"), "{shown}");
    let all = sandbox.ok(&["show", "calls", "--limit", "0", "--state", "all"]);
    assert_eq!(all.lines().count(), 1 + 4_096);
    assert!(sandbox.ok(&["verify", "calls"]).starts_with("calls: sound; 4,096 blocks checked"));
    assert_eq!(sandbox.ok(&["holders", "calls"]), "no process has it open\n");
}

#[test]
fn a_dump_shows_the_bytes_of_the_block_however_it_is_named() {
    let sandbox = Sandbox::with_calls(3);
    let block = &sandbox.json_lines(&["show", "calls"])[1];
    let number = block["number"].as_u64().unwrap() as u32;
    let view = PoolView::open(sandbox.path("calls.pool")).unwrap();
    let (_, data) = view.copy_block(number).unwrap().unwrap();
    let names = [&block["id"], &block["uuid"], &number.to_string().into()];
    for name in names.map(|name| name.as_str().unwrap()) {
        let text = sandbox.ok(&["dump", "calls", name]);
        assert!(text.contains(&format!("|block {number} of ")), "{text}");
        assert!(text.ends_with("\n00000040\n"), "{text}");
        let raw = sandbox.run(&["dump", "calls", name, "--raw"]);
        assert_eq!((raw.code, raw.stdout), (0, data.clone()));
    }
    let dumped = sandbox.json(&["dump", "calls", &number.to_string()]);
    assert_eq!(dumped["data"].as_str().unwrap().len(), 128);
    assert_eq!(dumped["block"]["uuid"], block["uuid"]);
}

#[test]
fn a_dump_of_what_is_not_there_says_so() {
    let sandbox = Sandbox::with_calls(3);
    let numbers = sandbox.numbers();
    let free = (0..64).find(|number| !numbers.contains(number)).unwrap().to_string();
    let free = sandbox.fails(1, &["dump", "calls", &free]);
    assert!(free.contains("it is free"), "{free}");
    let gone = sandbox.fails(1, &["dump", "calls", &format!("{}@9", numbers[0])]);
    assert!(gone.contains("its number is used by another"), "{gone}");
    sandbox.fails(1, &["dump", "calls", "4000000000"]);
    sandbox.fails(1, &["dump", "calls", "0b26db44-42b8-4d1b-9f3c-3b6f7a2b6d0e"]);
    sandbox.fails(2, &["dump", "calls", "first"]);
}

#[test]
fn every_command_prints_json_that_parses() {
    let sandbox = Sandbox::new();
    let created = sandbox.json(&["create", "calls", "--block-size", "1KiB", "--growth-step", "64"]);
    assert_eq!((&created["name"], &created["block_size_bytes"]), (&"calls".into(), &1_024.into()));
    let filled = sandbox.json(&["fill", "calls", "--blocks", "5", "--data", "random"]);
    assert_eq!(filled["filled"], 5);
    let listed = sandbox.json(&["ls"]);
    assert_eq!((&listed[0]["name"], &listed[0]["parked"]), (&"calls".into(), &5.into()));
    let info = sandbox.json(&["info", "calls"]);
    assert_eq!((&info["counts"]["parked"], &info["counts"]["free"]), (&5.into(), &59.into()));
    assert_eq!(sandbox.json_lines(&["show", "calls"]).len(), 5);
    assert_eq!(
        sandbox.json_lines(&["show", "calls", "--state", "free,parked", "--limit", "0"]).len(),
        64
    );
    assert_eq!(sandbox.json(&["holders", "calls"]), serde_json::json!([]));
    assert_eq!(sandbox.json(&["verify", "calls"])["sound"], true);
    assert_eq!(sandbox.json(&["repair", "calls"])["after"]["sound"], true);
    let recovered = sandbox.json(&["recover", "calls", "--unheld"]);
    assert_eq!(
        (&recovered["offered"], recovered["blocks"].as_array().unwrap().len()),
        (&5.into(), 5)
    );
    let exported = sandbox.json(&["export", "calls", "calls.jsonl"]);
    assert_eq!(exported["blocks"], 5);
    assert_eq!(sandbox.json(&["import", "calls.jsonl", "copy"])["blocks"], 5);
    assert_eq!(sandbox.json_lines(&["export", "copy"]).len(), 1 + 5 + 1);
    let watched = sandbox.json_lines(&["watch", "calls", "--for", "30ms", "--every", "10ms"]);
    assert_eq!(watched[0]["event"], "watching");
}

#[test]
fn a_pool_is_never_made_over_something_else() {
    let sandbox = Sandbox::with_calls(2);
    fs::write(sandbox.path("other.pool"), "something else").unwrap();
    for (name, file) in [("calls", "calls.pool"), ("./other.pool", "other.pool")] {
        unchanged(&sandbox.path(file), || {
            let error = sandbox.fails(1, &["create", name, "--block-size", "128"]);
            assert!(error.contains("exists already"), "{error}");
        });
    }
}

#[test]
fn a_wrong_command_line_is_told_from_a_failure() {
    let sandbox = Sandbox::with_calls(0);
    let wrong: [&[&str]; 9] = [
        &["create", "x"],
        &["create", "x", "--block-size", "much"],
        &["create", "a b", "--block-size", "64"],
        &["show", "calls", "--state", "lost"],
        &["recover", "calls", "--park", "--free"],
        &["watch", "calls", "--every", "1"],
        &["dump", "calls", "1", "--raw", "--json"],
        &["import", "x", "y", "--into", "--block-size", "64"],
        &["polish", "calls"],
    ];
    for arguments in wrong {
        sandbox.fails(2, arguments);
    }
    let failed: [&[&str]; 6] = [
        &["create", "x", "--block-size", "0"],
        &["create", "x", "--block-size", "2GiB"],
        &["create", "x", "--block-size", "64", "--max-blocks", "0"],
        &["info", "none"],
        &["info", "./none.pool"],
        &["ls", "./none"],
    ];
    for arguments in failed {
        sandbox.fails(1, arguments);
    }
    assert_eq!(sandbox.files(), ["calls.pool"]);
}

#[test]
fn a_pool_is_found_by_name_in_the_folder_or_by_path() {
    let sandbox = Sandbox::with_calls(1);
    fs::create_dir(sandbox.path("data")).unwrap();
    sandbox.ok(&["create", "data/orders.pool", "--block-size", "64"]);
    assert_eq!(sandbox.json(&["info", "data/orders.pool"])["name"], "orders");
    assert_eq!(sandbox.json(&["info", &sandbox.text("data/orders.pool")])["name"], "orders");
    assert_eq!(sandbox.json(&["info", "calls"])["name"], "calls");
    assert_eq!(sandbox.json(&["info", "calls.pool"])["name"], "calls", "a file in this folder");
    assert_eq!(sandbox.json(&["ls", "data"])[0]["name"], "orders");
    let error = sandbox.fails(1, &["info", "orders"]);
    assert!(error.contains("`mainstay pool ls` shows what there is"), "{error}");
    sandbox.ok(&["create", "./x.pool", "--block-size", "64", "--name", "other"]);
    assert_eq!(sandbox.json(&["info", "x"])["name"], "other");
}

#[test]
fn names_that_would_steer_a_terminal_are_escaped() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("a\x1b[31mred.pool"), "x").unwrap();
    let listed = sandbox.ok(&["ls"]);
    assert!(!listed.contains('\x1b') && listed.contains("a\\u{1b}[31mred"), "{listed:?}");
    let error = sandbox.fails(1, &["info", "./\x1b[2J"]);
    assert!(!error.contains('\x1b'), "{error:?}");
}

#[test]
fn a_full_pool_says_how_far_filling_came() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "small", "--block-size", "64", "--max-blocks", "64"]);
    let error = sandbox.fails(1, &["fill", "small", "--blocks", "65"]);
    assert!(error.contains("full") && error.contains("64 of 65 blocks were filled"), "{error}");
    assert_eq!(sandbox.json(&["info", "small"])["counts"]["parked"], 64);
}

#[test]
fn a_reader_of_the_output_that_leaves_early_is_no_failure() {
    let sandbox = Sandbox::with_calls(20_000);
    let mut command = sandbox.command(&["show", "calls", "--limit", "0", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
}

#[test]
fn looking_needs_no_process_slot_and_takes_no_block() {
    let sandbox = Sandbox::with_calls(3);
    let path = sandbox.path("calls.pool");
    let all: Vec<Pool> = (0..32).map(|_| Pool::join_any(&path).unwrap()).collect();
    let mine = all[0].allocate(Kind::Recoverable).unwrap();
    let number = sandbox.numbers()[0].to_string();
    let looks: [&[&str]; 8] = [
        &["ls"],
        &["info", "calls"],
        &["show", "calls"],
        &["dump", "calls", &number],
        &["verify", "calls"],
        &["holders", "calls"],
        &["export", "calls"],
        &["watch", "calls", "--for", "1ms"],
    ];
    unchanged(&path, || looks.iter().for_each(|look| drop(sandbox.ok(look))));
    let held = sandbox.json_lines(&["show", "calls", "--state", "held"]);
    assert_eq!((held.len(), &held[0]["uuid"]), (1, &mine.uuid().to_string().into()));
    let holders = sandbox.json(&["holders", "calls"]);
    assert_eq!((holders.as_array().unwrap().len(), &holders[0]["held"]), (32, &1.into()));
    let error = sandbox.fails(1, &["fill", "calls", "--blocks", "1"]);
    assert!(error.contains("all 32 process slots"), "{error}");
}

/// The line of the pool's promise about address space, as the command prints it.
#[test]
fn p1_a_million_blocks_cost_no_address_space_beyond_the_reservation() {
    let sandbox = Sandbox::new();
    sandbox.ok(&["create", "million", "--block-size", "256", "--max-blocks", "1000000"]);
    sandbox.ok(&["fill", "million", "--blocks", "1000000", "--data", "zero"]);
    let info = sandbox.json(&["info", "million"]);
    assert_eq!(info["counts"]["parked"], 1_000_000);
    let beyond = info["address_space_beyond_bytes"].as_u64().unwrap();
    assert!(beyond < 2 * 256 * 1_000_000, "{beyond} bytes");
    let mappings = info["mappings"].as_u64().unwrap();
    assert!((1..=300).contains(&mappings), "{mappings} mappings");
}

#[test]
fn completions_and_manual_pages_cover_every_command() {
    let sandbox = Sandbox::new();
    let program = env!("CARGO_BIN_EXE_mainstay");
    for shell in ["bash", "zsh", "fish"] {
        let output = std::process::Command::new(program).args(["completions", shell]).output();
        let script = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(script.contains("holders") && script.contains("block-size"), "{shell}");
    }
    let man = sandbox.path("man");
    let status = std::process::Command::new(program).arg("man").arg(&man).status().unwrap();
    assert!(status.success());
    for page in ["mainstay.1", "mainstay-demo.1", "mainstay-pool.1"] {
        assert!(man.join(page).is_file(), "{page}");
    }
    let commands = [
        "create", "dump", "export", "fill", "holders", "import", "info", "ls", "recover", "repair",
        "show", "verify", "watch",
    ];
    for command in commands {
        let page = fs::read_to_string(man.join(format!("mainstay-pool-{command}.1"))).unwrap();
        assert!(page.contains("Examples:"), "{command}");
    }
}
