package spec

import "strings"

// Covers reports whether a field of the document changes the hash. A field is
// its path in the JSON, with "[]" for the elements of lists and the values of
// objects with free keys: "runs[].argv[]", "environment.skus[]".
//
// Runs and accuracy suites count only while they are selected, and the entry of environment.skus
// only that environment.sku names.
func Covers(field string) bool {
	if strings.HasPrefix(field, "suites[].") {
		return field != "suites[].status" && field != "suites[].reasons[]" &&
			!strings.HasPrefix(field, "suites[].outlook.") && !strings.HasPrefix(field, "suites[].settings[]")
	}
	return covered[field]
}

// covered are the fields that change what is executed or how it is judged.
// Everything else leaves the hash as it is.
var covered = map[string]bool{
	"schema":      true,
	"source.repo": true, "source.commit": true, "source.subdir": true, "source.submodules": true,
	"model.id": true, "model.revision": true,
	"environment.manager": true, "environment.python.version": true, "environment.cuda.version": true, "environment.requirements[].spec": true,
	"environment.indexes[].url": true, "environment.indexes[].kind": true, "environment.system_packages[]": true, "environment.exclude_newer": true,
	"environment.sku": true, "environment.skus[]": true,
	"runs[].id": true, "runs[].kind": true, "runs[].route": true, "runs[].claim_ids[]": true, "runs[].script.interpreter": true,
	"runs[].script.text": true, "runs[].cwd": true, "runs[].setup[].argv[]": true, "runs[].setup[].cwd": true, "runs[].setup[].network": true,
	"runs[].env[]": true, "runs[].patches[].kind": true, "runs[].patches[].file": true, "runs[].patches[].line": true, "runs[].patches[].before": true,
	"runs[].patches[].after": true, "runs[].placeholders[]": true, "runs[].assets[].kind": true, "runs[].assets[].name": true,
	"runs[].assets[].url": true, "runs[].gpus.min": true, "runs[].expects.metric": true, "runs[].expects.value": true, "runs[].expects.unit": true,
	"runs[].expects.dataset": true, "runs[].expects.direction": true, "runs[].expects.tolerance.value": true, "runs[].expects.tolerance.kind": true,
	"runs[].collect[].metric": true, "runs[].collect[].kind": true, "runs[].collect[].path": true, "runs[].collect[].pattern": true,
	"runs[].collect[].pointer": true, "runs[].collect[].select": true, "runs[].collect[].scale": true, "runs[].collect[].unit": true,
	"runs[].timeout_s": true, "runs[].seeds[]": true, "runs[].selected": true, "runs[].argv[]": true,
	"claims[].id": true, "claims[].metric": true, "claims[].value": true, "claims[].value_lo": true, "claims[].value_hi": true, "claims[].unit": true,
	"claims[].relation": true, "claims[].baseline": true, "claims[].dataset": true, "claims[].direction": true, "claims[].tolerance.value": true,
	"claims[].tolerance.kind": true, "claims[].checkable": true,
	"bindings[].kind": true, "bindings[].name": true, "bindings[].value": true, "bindings[].url": true, "bindings[].sha256": true,
	"bindings[].place": true, "bindings[].runs[]": true,
}
