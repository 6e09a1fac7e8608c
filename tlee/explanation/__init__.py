"""Analysis of the exits that the policies take on the test videos."""
