# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stand-ins for the host's services and for other users, on a test's own bus.

usage: dbus_services.py ADDRESS polkit ACTION...    allow these actions to everybody
       dbus_services.py ADDRESS machined FILE       write a line a call there
       dbus_services.py ADDRESS caller UID GID      be that user; make the calls that come on stdin,
                                                    each a JSON array [path, interface, member, types,
                                                    options], and write each one's error, or "ok"; options
                                                    that are a list: the arguments themselves
"""
import json
import os
import sys

import dbus
import dbus.mainloop.glib
import dbus.service
from gi.repository import GLib


class Polkit(dbus.service.Object):
    IFACE = "org.freedesktop.PolicyKit1.Authority"

    def __init__(self, bus, *actions):
        super().__init__(bus, "/org/freedesktop/PolicyKit1/Authority")
        self.actions = actions

    @dbus.service.method(IFACE, in_signature="(sa{sv})sa{ss}us", out_signature="(bba{ss})")
    def CheckAuthorization(self, subject, action, details, flags, cancel):
        assert subject[0] == "system-bus-name" and subject[1]["name"].startswith(":")
        return action in self.actions, False, {}


class Machined(dbus.service.Object):
    IFACE = "org.freedesktop.machine1.Manager"

    def __init__(self, bus, log):
        super().__init__(bus, "/org/freedesktop/machine1")
        self.log = open(log, "w", buffering=1)

    @dbus.service.method(IFACE, in_signature="sayssus", out_signature="o")
    def RegisterMachine(self, name, number, service, kind, leader, root):
        assert not number and not root
        self.log.write(f"register {name} {service} {kind} {leader}\n")
        return dbus.ObjectPath("/org/freedesktop/machine1/machine/" + name)

    @dbus.service.method(IFACE, in_signature="s", out_signature="")
    def UnregisterMachine(self, name):
        self.log.write(f"unregister {name}\n")


EXAMPLES = {"s": "x", "x": 7, "t": 4096, "b": False, "d": 0.5, "as": dbus.Array([], "s")}


def call(bus, path, iface, member, types, options):
    args = [dbus.Dictionary(options, "sv") if t == "a{sv}" else EXAMPLES[t] for t in types]
    if isinstance(options, list):
        args = options
    try:
        bus.call_blocking("org.umbra.Vmm1", path, iface, member, "".join(types), args)
    except dbus.exceptions.DBusException as e:
        return e.get_dbus_name()
    return "ok"


def be_caller(address, uid, gid):
    os.setgroups([int(gid)])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
    bus = dbus.bus.BusConnection(address)
    for line in sys.stdin:
        print(call(bus, *json.loads(line)), flush=True)


KINDS = {"polkit": ("org.freedesktop.PolicyKit1", Polkit),
         "machined": ("org.freedesktop.machine1", Machined)}


def main():
    address, kind, *args = sys.argv[1:]
    if kind == "caller":
        be_caller(address, *args)
        return
    bus = dbus.bus.BusConnection(address, mainloop=dbus.mainloop.glib.DBusGMainLoop())
    bus.set_exit_on_disconnect(True)
    name, service = KINDS[kind]
    service(bus, *args)
    assert bus.request_name(name) == dbus.bus.REQUEST_NAME_REPLY_PRIMARY_OWNER
    print("ready", flush=True)
    GLib.MainLoop().run()


main()
