// What the cluster takes of KEDA: the definitions of its types.
module github.com/repromill/repromill/cmd/devcluster/keda

go 1.26.0

require github.com/kedacore/keda/v2 v2.21.0
