# `nix fmt`: all Nix and all Rust of this repository.
{
  treefmt,
  nixfmt,
  rustfmt,
}:
treefmt.withConfig {
  runtimeInputs = [
    nixfmt
    rustfmt
  ];
  settings = {
    tree-root-file = "flake.nix";
    on-unmatched = "info";
    formatter.nixfmt = {
      command = "nixfmt";
      includes = [ "*.nix" ];
      # Fixtures stay as they are, and what is asked of evaluators is laid out by hand.
      excludes = [
        "nix/eval/*"
        "tests/fixtures/*"
      ];
    };
    formatter.rustfmt = {
      command = "rustfmt";
      options = [
        "--edition"
        "2024"
      ];
      includes = [ "*.rs" ];
    };
  };
}
