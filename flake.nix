{
  description = "Nix-native build orchestrator: evaluate once, build only what nobody has built, push while it builds";

  inputs.nixpkgs.url = "https://channels.nixos.org/nixos-26.05/nixexprs.tar.xz";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
        "aarch64-darwin"
      ];
      each = f: lib.genAttrs systems (system: f system nixpkgs.legacyPackages.${system});
    in
    {
      packages = each (
        _system: pkgs:
        let
          drover = pkgs.callPackage ./nix/package.nix { };
        in
        {
          inherit drover;
          default = drover;
        }
        // lib.optionalAttrs pkgs.stdenv.hostPlatform.isLinux {
          # One file that runs on any Linux of its architecture.
          static = pkgs.pkgsStatic.callPackage ./nix/package.nix { };
        }
      );

      overlays.default = final: _prev: { drover = final.callPackage ./nix/package.nix { }; };

      apps = each (
        system: _pkgs: {
          default = {
            type = "app";
            program = lib.getExe self.packages.${system}.default;
            inherit (self.packages.${system}.default) meta;
          };
        }
      );

      devShells = each (
        system: pkgs: {
          default = pkgs.callPackage ./nix/shell.nix { drover = self.packages.${system}.default; };
        }
      );

      formatter = each (_system: pkgs: pkgs.callPackage ./nix/formatter.nix { });

      checks = each (
        system: pkgs:
        import ./nix/checks.nix {
          inherit pkgs self;
          drover = self.packages.${system}.default;
          formatter = self.formatter.${system};
        }
      );

      nixosModules.default = ./modules/nixos.nix;
      flakeModules.default = ./modules/flake-parts.nix;
    };
}
