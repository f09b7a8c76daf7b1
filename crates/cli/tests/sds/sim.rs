//! A simulated group, from the command line.

use serde_json::Value;
use std::process::Command;

fn sim(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mainstay"));
    let output = command.args(["sds", "sim"]).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json_of(arguments: &[&str]) -> Value {
    let (code, stdout, stderr) = sim(&[arguments, &["--json"]].concat());
    assert_eq!((code, &*stderr), (0, ""));
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn a_group_with_loss_and_churn_converges_with_each_message_delivered_once() {
    for profile in ["lip", "nim"] {
        let arguments =
            ["--participants", "20", "--loss", "30", "--churn", "40", "--messages", "30"];
        let report = json_of(&[&arguments[..], &["--profile", profile]].concat());
        assert_eq!(report["converged"], true);
        assert_eq!(report["same_log"], true);
        assert_eq!(report["delivered"], 30 * 19);
        assert_eq!(report["delivered_twice"], 0);
        assert_eq!(report["restarts"], 8);
        let delay = &report["delay_s"];
        let at = |name: &str| delay[name].as_f64().unwrap();
        assert!(at("p50") <= at("p90") && at("p90") <= at("p99") && at("p99") <= at("max"));
        // It cannot be better than a sender who knows everything, on the average.
        let figure = |name: &str| report[name].as_f64().unwrap();
        assert!(figure("copies_per_message") > 0.8 * figure("copies_floor"));
    }
}

#[test]
fn without_loss_nothing_is_sent_again_and_all_is_there_at_once() {
    let report = json_of(&["--participants", "10", "--loss", "0", "--messages", "10"]);
    assert_eq!(report["copies_per_message"], 0.0);
    assert!(report["delay_s"]["max"].as_f64().unwrap() <= 0.15);
}

#[test]
fn the_seed_decides_everything() {
    let run = |seed| {
        let mut report = json_of(&["--participants", "10", "--messages", "10", "--seed", seed]);
        report.as_object_mut().unwrap().remove("took_s");
        report
    };
    assert_eq!(run("3"), run("3"));
    assert_ne!(run("3"), run("4"));
}

#[test]
fn a_group_that_has_no_time_is_told_not_to_have_converged() {
    let arguments = ["--participants", "10", "--loss", "50", "--messages", "5", "--limit", "1s"];
    let (code, stdout, stderr) = sim(&arguments);
    assert_eq!(code, 1);
    assert!(stdout.contains("converged            NO"), "{stdout}");
    assert!(stderr.contains("has not converged") && stderr.contains("--limit"), "{stderr}");
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_before_the_work_and_a_result_is_printed_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no such folder").join("group.svg");
    // So much work that a test could not wait for it.
    let work = ["--participants", "10000", "--messages", "100000"];
    let (code, stdout, stderr) = sim(&[&work[..], &["--plot", path.to_str().unwrap()]].concat());
    assert_eq!((code, &*stdout), (1, ""));
    assert!(stderr.contains("write the plot"), "{stderr}");
    // A device without any room: the file opens, and takes nothing.
    let small = ["--participants", "2", "--messages", "1", "--plot", "/dev/full"];
    let (code, stdout, stderr) = sim(&small);
    assert_eq!(code, 1, "{stderr}");
    assert!(stdout.contains("converged            yes"), "{stdout}");
}

#[test]
fn the_plot_is_an_svg_file_with_a_line_for_each_kind_of_traffic_and_the_delays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("group.svg");
    let path = path.to_str().unwrap();
    json_of(&["--participants", "10", "--messages", "10", "--plot", path]);
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    for text in ["10 participants, 20 of 100 messages lost", "% delivered", "repair", "sync"] {
        assert!(svg.contains(text), "{text} is not in the plot");
    }
    let lines = svg.matches("<polyline ").count();
    assert!(lines >= 5, "{lines} lines");
}
