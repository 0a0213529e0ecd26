// Package deploy holds no code: its tests keep true what lies in this folder
// (manifests, compose file, dashboards, alerts, runbooks, references).
package deploy
