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
      # A fixture of what does not parse.
      excludes = [ "tests/fixtures/broken/*" ];
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
