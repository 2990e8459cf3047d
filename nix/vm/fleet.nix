# A flake for machines without a network: its builds need nothing but the busybox that their sandbox has. Each takes
# `seconds`.
{
  pkgs,
  names,
  seconds ? 0,
}:
let
  inherit (pkgs.stdenv.hostPlatform) system;
in
pkgs.writeText "flake.nix" ''
  {
    outputs = _: {
      packages.${system} = builtins.listToAttrs (map (name: {
        inherit name;
        value = derivation {
          inherit name;
          system = "${system}";
          builder = "/bin/busybox";
          args = [ "sh" "-c" "/bin/busybox sleep ${toString seconds}; echo $name > $out" ];
        };
      }) [ ${pkgs.lib.concatMapStringsSep " " builtins.toJSON names} ]);
    };
  }
''
