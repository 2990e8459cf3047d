# A builder is switched off in the middle of a run: what it was building is built elsewhere, and the run succeeds.
{ self }:
{
  name = "drover-builder-dies";

  nodes = {
    coordinator = import ./coordinator.nix {
      seconds = 20;
      names = [
        "one"
        "two"
        "three"
        "four"
      ];
    };
    big1 = import ./big.nix { inherit self; };
    big2 = import ./big.nix { inherit self; };
  };

  testScript = ''
    import json

    start_all()
    for builder in [big1, big2]:
        builder.wait_for_unit("sshd.service")
    coordinator.wait_for_unit("multi-user.target")
    coordinator.succeed("cp -rL /etc/fleet /root/fleet")

    builders = "ssh-ng://drover@big1; ssh-ng://drover@big2"
    coordinator.execute(
        f"(drover run /root/fleet -j 0 --builders '{builders}' --json >/root/run.json; echo $? >/root/exit) >/dev/null 2>&1 &"
    )
    big1.wait_until_succeeds("pgrep -f 'busybox sleep'")
    big1.crash()

    coordinator.wait_for_file("/root/exit")
    assert coordinator.succeed("cat /root/exit").strip() == "0", coordinator.succeed("drover report")
    document = json.loads(coordinator.succeed("cat /root/run.json"))
    assert [attr["status"] for attr in document["attrs"]] == ["built"] * 4, document
    for attr in document["attrs"]:
        big2.succeed(f"test -e {attr['outputs']['out']}")
  '';
}
