//! 60 derivations that do nothing, from the start of the process to its end.

use super::Bench;
use super::rows::Part;

const COUNT: usize = 60;

/// Prints both times of each round.
pub(crate) fn measure(bench: &mut Bench, rounds: usize) {
    let system = super::system();
    bench.write(
        "flake.nix",
        &format!(
            r#"{{
  outputs = {{ self }}: {{
    packages.{system} = builtins.listToAttrs (builtins.genList (number: rec {{
      name = "tiny${{toString number}}";
      value = derivation {{
        inherit name;
        system = "{system}";
        builder = "/bin/sh";
        args = [ "-c" "echo $name > $out" ];
        salt = builtins.readFile ./salt;
      }};
    }}) {COUNT});
  }};
}}
"#
        ),
    );
    let names: Vec<String> = (0..COUNT).map(|number| format!(".#packages.{system}.tiny{number}")).collect();
    for round in 1..=rounds {
        bench.salt();
        let before = bench.built_on_builders();
        let nix = bench.with_nix(&names);
        let after = bench.built_on_builders();
        assert!(before.iter().zip(&after).all(|(before, after)| after > before), "{before:?} {after:?}");
        bench.salt();
        let (seconds, record) = bench.with_drover(&names);
        bench.assert_built_there(&record, COUNT);
        println!(
            "round {round}: nix build {nix:.2} s, drover {seconds:.2} s ({:.2} s to the first attempt, {:.2} s of attempts)",
            record.first,
            record.last - record.first
        );
        let part = Part { bench: "farm", part: &bench.part("60 tiny drvs"), unit: "s" };
        part.drover(seconds, 1.0);
        part.tool("nix build --builders", nix);
    }
}
