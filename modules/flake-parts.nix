# drover.toml from the options of a flake that is made with flake-parts: `nix run .#drover-toml` writes the file, a check
# says when it is out of step, and `nix run .#drover` is drover itself.
{
  config,
  lib,
  self,
  ...
}:
let
  inherit (lib) mkOption types;
  cfg = config.drover;
in
{
  options.drover = {
    settings = mkOption {
      type = types.submodule ./options.nix;
      default = { };
      description = "What drover.toml says.";
    };
    package = mkOption {
      type = types.functionTo types.package;
      default = pkgs: pkgs.callPackage ../nix/package.nix { };
      defaultText = lib.literalExpression "pkgs: pkgs.callPackage ./nix/package.nix { }";
      description = "The drover of a package set.";
    };
  };

  config.perSystem =
    { pkgs, ... }:
    let
      toml = pkgs.callPackage ./toml.nix { } cfg.settings;
      write = pkgs.writeShellApplication {
        name = "drover-toml";
        runtimeInputs = [ pkgs.coreutils ];
        text = "install -m 644 ${toml} drover.toml";
      };
    in
    {
      apps.drover = {
        type = "app";
        program = lib.getExe (cfg.package pkgs);
        meta.description = "Build what nobody has built";
      };
      apps.drover-toml = {
        type = "app";
        program = lib.getExe write;
        meta.description = "Write drover.toml as flake.nix has it";
      };
      checks.drover-toml = pkgs.runCommand "drover-toml-is-in-step" { } ''
        if ! diff ${self}/drover.toml ${toml}; then
          echo "drover.toml is not what flake.nix says: nix run .#drover-toml" >&2
          exit 1
        fi
        touch $out
      '';
    };
}
