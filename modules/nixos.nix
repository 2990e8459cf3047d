# services.drover: scheduled runs of a repository, and a host that builds for others.
{
  imports = [
    ./runs.nix
    ./builder.nix
  ];
}
