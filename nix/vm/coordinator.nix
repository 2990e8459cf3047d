# The machine that has a flake to build, and drover to do it with.
{
  names,
  seconds ? 0,
}:
{ pkgs, ... }:
{
  imports = [ ./machine.nix ];
  environment.etc."fleet/flake.nix".source = import ./fleet.nix { inherit pkgs names seconds; };
}
