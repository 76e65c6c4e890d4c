// SPDX-License-Identifier: LGPL-2.1-or-later
// A machine's life through jayson, as its manual has it: node life.js SETTINGS KERNEL. Prints what it was answered.
"use strict";
const fs = require("fs");
const jayson = require("jayson/promise");

const settings = JSON.parse(process.argv[2]);
const kernel = process.argv[3];

function connect() {
	if (settings.path)
		return jayson.Client.tcp({ path: settings.path });
	return jayson.Client.tls({
		host: "localhost", port: settings.port, ca: fs.readFileSync(settings.ca),
		cert: fs.readFileSync(settings.cert), key: fs.readFileSync(settings.key),
	});
}

async function main() {
	const client = connect();
	const told = [];
	const steps = [
		["system.hello", {}],
		["machine.create", { definition: { name: "js", kernel } }],
		["machine.create", { definition: { name: "js", kernel } }],
		["machine.start", { name: "js" }],
		["machine.show", { name: "js" }],
		["machine.stop", { name: "js", force: true }],
		["machine.show", { name: "js" }],
		["machine.show", { name: "sj" }],
		["machine.show", {}],
		["machine.shwo", {}],
		["machine.delete", { name: "js" }],
		["machine.list", {}],
	];
	for (const [method, params] of steps) {
		const answer = await client.request(method, params);
		told.push({ method, result: answer.result, error: answer.error });
	}
	const batch = await client.request([
		client.request("system.version", {}, undefined, false),
		client.request("machine.show", { name: "nobody" }, undefined, false),
		client.request("system.version", {}, null, false),
	]);
	console.log(JSON.stringify({ told, batch }));
}

main().catch((e) => { console.error(e); process.exit(1); });
