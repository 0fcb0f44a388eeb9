"""From finished steps to results, report and export."""
