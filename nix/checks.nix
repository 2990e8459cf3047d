# `nix flake check`: what of the tests runs in a sandbox. nix/test runs all of them.
{
  pkgs,
  self,
  drover,
  formatter,
}:
let
  inherit (pkgs) lib;
  vmTest = test: pkgs.testers.runNixOSTest (import test { inherit self; });
in
{
  # Built with its unit tests.
  package = drover;

  clippy = drover.overrideAttrs (old: {
    pname = "drover-clippy";
    nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
    preBuild = "cp ${../.clippy.toml} .clippy.toml";
    buildPhase = ''
      runHook preBuild
      cargo clippy --offline --all-targets -- -D warnings
      runHook postBuild
    '';
    doCheck = false;
    installPhase = "touch $out";
    postFixup = "";
  });

  # `nix fmt` has nothing to change.
  format = pkgs.runCommand "drover-format" { nativeBuildInputs = [ formatter ]; } ''
    cp -R --no-preserve=mode ${self} source
    treefmt --ci --tree-root source
    touch $out
  '';

  # drover's verdict on its own flake, with a nixpkgs that is at hand.
  itself =
    pkgs.runCommand "drover-check-itself"
      {
        nativeBuildInputs = [
          drover
          pkgs.nix
        ];
      }
      ''
        export HOME=$TMPDIR/home NIX_CONF_DIR=$TMPDIR/conf
        export NIX_STORE_DIR=$TMPDIR/store NIX_STATE_DIR=$TMPDIR/var NIX_LOG_DIR=$TMPDIR/log
        mkdir -p "$HOME" "$NIX_CONF_DIR" "$NIX_STATE_DIR"
        echo 'experimental-features = nix-command flakes' >"$NIX_CONF_DIR/nix.conf"
        drover check ${self} --no-build --offline --override-input nixpkgs ${self}/tests/fixtures/nixpkgs
        touch $out
      '';
}
// lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
  vm-builder = vmTest ./vm/builder.nix;
  vm-push = vmTest ./vm/push.nix;
  vm-builder-dies = vmTest ./vm/builder-dies.nix;
}
