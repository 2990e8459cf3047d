# What it takes to work on drover, beside a Nix. On Debian the tests bring theirs: nix/setup --test.
{
  mkShell,
  rustPlatform,
  drover,
  cargo-deny,
  cargo-insta,
  clippy,
  gitMinimal,
  nixfmt,
  openssh,
  rust-analyzer,
  rustfmt,
}:
mkShell {
  inputsFrom = [ drover ];
  packages = [
    cargo-deny
    cargo-insta
    clippy
    gitMinimal
    nixfmt
    openssh
    rust-analyzer
    rustfmt
  ];
  env.RUST_SRC_PATH = "${rustPlatform.rustLibSrc}";
}
