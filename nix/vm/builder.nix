# A run on a machine that builds nothing itself: everything is built over ssh-ng on another one, with a key that opens
# nothing but its daemon.
{ self }:
{
  name = "drover-builder";

  nodes = {
    coordinator = import ./coordinator.nix {
      names = [
        "one"
        "two"
        "three"
      ];
    };
    big1 = import ./big.nix { inherit self; };
  };

  testScript = ''
    import json

    start_all()
    big1.wait_for_unit("sshd.service")
    coordinator.wait_for_unit("multi-user.target")
    coordinator.succeed("cp -rL /etc/fleet /root/fleet")

    with subtest("the key opens no shell"):
        said = coordinator.execute("timeout 10 ssh $NIX_SSHOPTS drover@big1 id </dev/null 2>&1")[1]
        assert "uid=" not in said, said

    with subtest("everything is built over there, and the results come home"):
        run = "drover run /root/fleet -j 0 --builders ssh-ng://drover@big1 --json"
        document = json.loads(coordinator.succeed(run))
        assert [attr["status"] for attr in document["attrs"]] == ["built"] * 3, document
        for attr in document["attrs"]:
            out = attr["outputs"]["out"]
            big1.succeed(f"test -e {out}")
            coordinator.succeed(f"test -e {out}")

    with subtest("once more there is nothing to do"):
        document = json.loads(coordinator.succeed(run))
        assert document["drvs"]["build"] == [], document
  '';
}
