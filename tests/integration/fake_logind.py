# SPDX-License-Identifier: LGPL-2.1-or-later
"""A logind that shuts the host down: on the bus that is named, once somebody holds its inhibitor. Says "held",
waits for a line, tells of the shutdown, says "free" when the inhibitor was closed."""
import os
import sys

import dbus
import dbus.bus
import dbus.service
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

NAME = "org.freedesktop.login1"
DBusGMainLoop(set_as_default=True)
loop = GLib.MainLoop()


class Manager(dbus.service.Object):
    @dbus.service.method(f"{NAME}.Manager", in_signature="ssss", out_signature="h")
    def Inhibit(self, what, who, why, mode):
        assert (what, who, mode) == ("shutdown", "umbrad", "delay"), (what, who, mode)
        r, w = os.pipe()
        fd = dbus.types.UnixFd(w)
        os.close(w)
        GLib.io_add_watch(r, GLib.IO_HUP, self.freed)
        print("held", flush=True)
        return fd

    @dbus.service.signal(f"{NAME}.Manager", signature="b")
    def PrepareForShutdown(self, begins):
        pass

    def freed(self, *_):
        print("free", flush=True)
        loop.quit()

    def begin(self, *_):
        if sys.stdin.readline():
            self.PrepareForShutdown(True)
        else:
            loop.quit()  # whoever started us is gone
        return False


bus = dbus.bus.BusConnection(sys.argv[1])
bus.set_exit_on_disconnect(True)
manager = Manager(dbus.service.BusName(NAME, bus), "/org/freedesktop/login1")
GLib.io_add_watch(sys.stdin, GLib.IO_IN | GLib.IO_HUP, manager.begin)
print("here", flush=True)
loop.run()
