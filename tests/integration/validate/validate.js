// SPDX-License-Identifier: LGPL-2.1-or-later
// Validate an OpenAPI and an OpenRPC document with the validators of others.
// usage: node validate.js openapi|openrpc FILE
import fs from 'node:fs';
import { createRequire } from 'node:module';
import Ajv from 'ajv';
import { Validator } from '@seriousme/openapi-schema-validator';

const require = createRequire(import.meta.url);
const [kind, file] = process.argv.slice(2);
const doc = JSON.parse(fs.readFileSync(file, 'utf8'));

async function openapi() {
	const validator = new Validator();
	const result = await validator.validate(doc);

	return [result.valid, result.errors, validator.version];
}

// OpenRPC's schema refers to one that is its own schema, under two spellings of its address.
function openrpc() {
	const other = /https:..meta\.json-schema\.tools\/?/g;
	const load = name => {
		const schema = require(name);
		const text = JSON.stringify(schema.default ?? schema);

		return { ...JSON.parse(text.replaceAll(other, 'https://meta.json-schema.tools/s')),
			$schema: 'http://json-schema.org/draft-07/schema#' };
	};
	const ajv = new Ajv({ strict: false, logger: false, allErrors: true });

	ajv.addSchema(load('@json-schema-tools/meta-schema'));
	const validate = ajv.compile(load('@open-rpc/meta-schema'));
	return [validate(doc), validate.errors, doc.openrpc];
}

const [valid, errors, version] = await { openapi, openrpc }[kind]();
console.log(valid ? `valid ${version}` : JSON.stringify(errors, null, 1));
process.exit(valid ? 0 : 1);
