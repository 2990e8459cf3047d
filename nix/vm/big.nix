# A host that builds for the others.
{ self }:
{ pkgs, ... }:
{
  imports = [
    self.nixosModules.default
    ./machine.nix
  ];
  services.drover.builder = {
    enable = true;
    authorizedKeys = [ (import (pkgs.path + "/nixos/tests/ssh-keys.nix") pkgs).snakeOilPublicKey ];
    maxJobs = 2;
  };
}
