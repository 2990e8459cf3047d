# What all machines of the tests have: a Nix that asks nobody, a busybox in its sandbox, and a key to log in with.
{ pkgs, ... }:
{
  environment.systemPackages = [ (pkgs.callPackage ../package.nix { }) ];
  environment.etc."drover-key" = {
    source = (import (pkgs.path + "/nixos/tests/ssh-keys.nix") pkgs).snakeOilPrivateKey;
    mode = "0400";
  };
  environment.variables.NIX_SSHOPTS = "-i /etc/drover-key -o StrictHostKeyChecking=accept-new";
  nix.settings = {
    experimental-features = [
      "nix-command"
      "flakes"
    ];
    extra-sandbox-paths = [ "/bin/busybox=${pkgs.pkgsStatic.busybox}/bin/busybox" ];
    flake-registry = "";
    substituters = pkgs.lib.mkForce [ ];
  };
  virtualisation.writableStore = true;
}
